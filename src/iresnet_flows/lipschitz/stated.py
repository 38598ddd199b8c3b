"""An activation of the user's own, with the slope that is stated of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_kind, check_number
from iresnet_flows.concrete import concrete, is_recorded
from iresnet_flows.errors import BrokenLipschitzClaim
from iresnet_flows.lipschitz.activations import Activation
from iresnet_flows.maps.perceptrons import Nonlinearity
from iresnet_flows.pullback import vjp
from iresnet_flows.stateless import call_with, floating

__all__ = ["Elementwise"]


class Elementwise(Activation):
    r"""A module of the user's that acts on each entry alone, with the slope its author states.

    The bound of the whole branch stands and falls with the statement. It is *tested, not proven*:
    wherever derivatives are taken, as for every log-det, a steeper one raises, and so does a
    module that mixes entries. That costs another of its backward passes, and on a GPU two waits;
    in what is compiled or traced there is no test.

    Arguments:
        module: The module, from ``(*, h)`` to ``(*, h)``.
        slope: The stated bound of :math:`|a'(z)|`, for all that training may make of the module.

    Raises:
        BrokenLipschitzClaim: A slope is above the stated one by more than rounding errors, or
            an entry depends on another.
        ValueError: The slope is not a positive finite number.
        TypeError: The module is none.

    Example:
        >>> import torch
        >>> from iresnet_flows import LipschitzMLP
        >>> from iresnet_flows.lipschitz import Elementwise
        >>> g = LipschitzMLP(2, activation=Elementwise(torch.nn.Softsign(), slope=1.0))
        >>> bool(g.lipschitz_bound() <= 0.9)
        True
    """

    def __init__(self, module: nn.Module, slope: float) -> None:
        super().__init__()
        check_kind("module", module, nn.Module, "a torch.nn.Module")
        self.module = module
        self.slope = slope

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse a slope that is none, at the start and whenever it is set."""
        if name == "slope":
            check_number("slope", value)
            if not 0 < value < math.inf:
                raise ValueError(f"slope must be a positive finite number, got {value!r}.")
            value = float(value)
        super().__setattr__(name, value)

    def at(self) -> Nonlinearity:
        return WithState(self.module, dict(floating(self.module)), self.slope)


@dataclass(frozen=True)
class WithState:
    """A module with its tensors in place, and the slope that is stated of it."""

    module: nn.Module
    state: dict[str, Tensor]
    slope: float

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(self.state.values())

    @property
    def rebuild(self) -> Callable[..., WithState]:
        return partial(with_state, self.module, tuple(self.state), self.slope)

    def value(self, z: Tensor) -> Tensor:
        value: Tensor = call_with(self.module, self.state, (z,))
        return value

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, pull = vjp(self.value, z)
        slopes = pull(torch.ones_like(value))[0]
        if slopes.numel() and not is_recorded():
            error = self.slope * torch.finfo(value.dtype).eps ** 0.5
            signs = scattered_signs(value)
            require_alone(slopes - signs * pull(signs)[0], error)
            require_slope(slopes, self.slope, error)
        return value, slopes.unsqueeze(1)


def with_state(
    module: nn.Module, names: tuple[str, ...], slope: float, *tensors: Tensor
) -> WithState:
    return WithState(module, dict(zip(names, tensors, strict=True)), slope)


def scattered_signs(like: Tensor) -> Tensor:
    """Entries 1 and -1 in no order, and no generator's."""
    places = torch.arange(like.numel(), dtype=torch.float64, device=like.device)
    return places.square().sin().sign().where(places > 0, 1.0).to(like.dtype).reshape(like.shape)


def require_alone(difference: Tensor, error: float) -> None:
    """Raise where the sums of a Jacobian's columns are others once its rows are given signs.

    For a diagonal one they only take on these signs, which are out of the difference.
    """
    if float(concrete(difference).abs().max()) > error:
        raise BrokenLipschitzClaim(
            "the activation was stated to act on each entry alone, but one of them moves another, "
            "so that its slopes are no derivative: take a module without softmax, sorting, "
            "normalisation or matrix, or a ClaimedBranch around the whole network."
        )


def require_slope(slopes: Tensor, stated: float, error: float) -> None:
    """Raise where one is above what is stated by more than rounding errors."""
    steepest = float(concrete(slopes).abs().max())
    if steepest > stated + error:
        raise BrokenLipschitzClaim(
            f"the activation was stated to have the slope {stated:.6g}, but it has "
            f"{steepest:.6g} at an entry, and x + g(x) may not be invertible: state a larger "
            "slope, or bound the module's parameters."
        )
