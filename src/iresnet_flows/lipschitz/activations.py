"""Activations whose slope is bounded by a proven constant."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iresnet_flows.abstract import AbstractModule
from iresnet_flows.checks import check_widths
from iresnet_flows.errors import unknown
from iresnet_flows.maps.perceptrons import Nonlinearity
from iresnet_flows.nodes import node

__all__ = ["Activation", "make_activation", "make_activations"]


class Activation(AbstractModule):
    r"""An activation :math:`a: \mathbb{R}^h \to \mathbb{R}^{kh}` that acts on each entry alone.

    Each entry :math:`z` gives :math:`k` features :math:`a_1(z), \dots, a_k(z)`, concatenated block
    by block. The map is Lipschitz with the constant

    .. math:: \sup_z \sqrt{a_1'(z)^2 + \dots + a_k'(z)^2} \leq \text{slope} .

    Attributes:
        slope: The proven bound.
        copies: The number :math:`k` of features an entry gives.
        phase: Hidden biases start uniformly in (-phase, phase).

    Example:
        >>> import torch
        >>> from iresnet_flows.lipschitz import make_activation
        >>> z = torch.randn(5, 4)
        >>> features, slopes = make_activation("csin").linearize(z)
        >>> features.shape, slopes.shape
        (torch.Size([5, 8]), torch.Size([5, 2, 4]))
        >>> torch.allclose(slopes.norm(dim=1), torch.ones(5, 4))
        True
    """

    slope: float = 1.0
    copies: int = 1
    phase: float = 0.0

    @abstractmethod
    def at(self) -> Nonlinearity:
        """The function with the present parameters in place."""

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values and derivatives at once.

        Arguments:
            z: The entries, with shape ``(B, h, *space)``.

        Returns:
            The features ``(B, k h, *space)`` and the derivatives ``(B, k, h, *space)``.
        """
        return self.at().linearize(z)

    def forward(self, z: Tensor) -> Tensor:
        """The features alone."""
        return self.at().value(z)


class Fixed(Activation):
    """An activation without parameters."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def rebuild(self) -> Callable[..., Nonlinearity]:
        return self.at

    def at(self) -> Nonlinearity:
        return self

    @abstractmethod
    def value(self, z: Tensor) -> Tensor: ...

    @abstractmethod
    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]: ...


class ConcatenatedSine(Fixed):
    r""":math:`z \mapsto (\sin z, \cos z)`.

    Its derivative :math:`(\cos z, -\sin z)` has norm one everywhere, so that no part of a
    Lipschitz budget is lost at any input.
    """

    copies = 2
    phase = math.pi

    def value(self, z: Tensor) -> Tensor:
        return torch.cat((z.sin(), z.cos()), 1)

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        features, slopes = node(SineCosine, z)
        return features, slopes


class Sine(Fixed):
    r""":math:`z \mapsto \sin z`."""

    phase = math.pi

    def value(self, z: Tensor) -> Tensor:
        return z.sin()

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return z.sin(), z.cos().unsqueeze(1)


class LipSwish(Activation):
    r""":math:`z \mapsto z\, \sigma(\beta z) / 1.1` with a learned :math:`\beta > 0`.

    The largest slope of :math:`z\,\sigma(\beta z)` is 1.09984 for every :math:`\beta`.

    References:
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raw_sharpness = nn.Parameter(torch.tensor(0.5))

    def at(self) -> Nonlinearity:
        return SharpLipSwish(F.softplus(self.raw_sharpness))


class ConcatenatedLipSwish(LipSwish):
    r""":math:`z \mapsto (s(z), s(-z)) / 1.004` with LipSwish :math:`s`.

    The norm of the two slopes is at most 1.003966 before the division.

    References:
        Perugachi-Diaz et al., Invertible DenseNets with Concatenated LipSwish, 2021.
    """

    copies = 2

    def at(self) -> Nonlinearity:
        return SharpConcatenatedLipSwish(F.softplus(self.raw_sharpness))


class ELU(Fixed):
    r""":math:`z \mapsto z` for :math:`z > 0`, else :math:`e^z - 1`."""

    def value(self, z: Tensor) -> Tensor:
        return F.elu(z)

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return F.elu(z), z.clamp(max=0).exp().unsqueeze(1)


class Tanh(Fixed):
    r""":math:`z \mapsto \tanh z`."""

    def value(self, z: Tensor) -> Tensor:
        return z.tanh()

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value = z.tanh()
        return value, (1 - value.square()).unsqueeze(1)


class Softplus(Fixed):
    r""":math:`z \mapsto \log(1 + e^z)`."""

    def value(self, z: Tensor) -> Tensor:
        # Beyond 20, torch's own would be the identity, and jump there by more than float64 rounds.
        return F.softplus(z, threshold=40)

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.value(z), z.sigmoid().unsqueeze(1)


@dataclass(frozen=True)
class SharpLipSwish:
    """LipSwish with its sharpness in place."""

    beta: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.beta,)

    @property
    def rebuild(self) -> Callable[..., SharpLipSwish]:
        return type(self)

    def value(self, z: Tensor) -> Tensor:
        return z * torch.sigmoid(self.beta * z) / 1.1

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = node(SwishSlope, z, self.beta)
        return value, slope.unsqueeze(1)


@dataclass(frozen=True)
class SharpConcatenatedLipSwish(SharpLipSwish):
    """The same for its concatenated form."""

    def value(self, z: Tensor) -> Tensor:
        swish = super().value
        return torch.cat((swish(z), swish(-z)), 1) / 1.004

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        right, rise = super().linearize(z)
        left, fall = super().linearize(-z)
        return torch.cat((right, left), 1) / 1.004, torch.cat((rise, -fall), 1) / 1.004


class SineCosine(torch.autograd.Function):
    """(sin z, cos z) and (cos z, -sin z), with their gradient in one step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor) -> tuple[Tensor, Tensor]:
        sine, cosine = z.sin(), z.cos()
        return torch.cat((sine, cosine), 1), torch.stack((cosine, -sine), 1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        cosine, minus_sine = ctx.saved_tensors[0].unbind(1)
        features, slopes = cotangents
        of_sine, of_cosine = features.unflatten(1, slopes.shape[1:3]).unbind(1)
        of_slope, of_minus_sine = slopes.unbind(1)
        return (of_sine - of_minus_sine) * cosine + (of_cosine + of_slope) * minus_sine


class SwishSlope(torch.autograd.Function):
    """LipSwish and its slope, with their gradient in one step."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(beta * z)
        value = z * gate / 1.1
        return value, gate / 1.1 + beta * value * (1 - gate)

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, Tensor]:
        z, beta = ctx.saved_tensors
        of_value, of_slope = cotangents
        gate = torch.sigmoid(beta * z)
        bump = gate * (1 - gate) / 1.1
        bend = of_slope * bump * (2 + beta * z * (1 - 2 * gate))
        slope = gate / 1.1 + beta * z * bump
        return of_value * slope + beta * bend, (z * (of_value * z * bump + bend)).sum()


ACTIVATIONS: dict[str, type[Activation]] = {
    "csin": ConcatenatedSine,
    "sin": Sine,
    "lipswish": LipSwish,
    "clipswish": ConcatenatedLipSwish,
    "elu": ELU,
    "tanh": Tanh,
    "softplus": Softplus,
}


def make_activation(name: str | Activation) -> Activation:
    """The activation of that name, or the one given.

    Arguments:
        name: ``csin``, ``sin``, ``lipswish``, ``clipswish``, ``elu``, ``tanh`` or ``softplus``.

    Raises:
        ValueError: There is no activation of that name.
        TypeError: It is neither a name nor an `Activation`.

    Example:
        >>> from iresnet_flows.lipschitz import make_activation
        >>> make_activation("lipswish").slope
        1.0
    """
    if isinstance(name, Activation):
        return name
    if not isinstance(name, str):
        raise TypeError(
            f"activation must be a name or an Activation, got {type(name).__name__}: wrap a "
            "module as iresnet_flows.lipschitz.Elementwise(module, slope=...)."
        )
    if name not in ACTIVATIONS:
        raise ValueError(unknown("activation", name, ACTIVATIONS))
    return ACTIVATIONS[name]()


def make_activations(
    hidden_features: Sequence[int],
    activation: str | Activation,
    name: str = "hidden_features",
) -> list[Activation]:
    """An activation for each hidden layer; its width must be a multiple of the copies.

    Raises:
        ValueError: A width or the name is out of range.
    """
    check_widths(name, hidden_features)
    activations = [make_activation(activation) for _ in hidden_features]
    for width, a in zip(hidden_features, activations, strict=True):
        if width % a.copies:
            raise ValueError(
                f"each of {name} must be a multiple of {a.copies}, got {width}: the "
                f"activation hands on {a.copies} features for each entry."
            )
    return activations
