"""Transforms of torch.distributions, Pyro's among them, as layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.distributions import ComposeTransform, Transform, constraints
from torch.distributions.transforms import _InverseTransform

from iresnet_flows.bridge.guests import ForeignLayer, Guest, span
from iresnet_flows.bridge.renewal import renewed
from iresnet_flows.concrete import concrete
from iresnet_flows.distributions import LayerTransform
from iresnet_flows.errors import InputOutsideDomain
from iresnet_flows.stateless import TORCH_ATTRIBUTES

__all__ = ["BuiltLayer", "TransformLayer", "recognised"]


class BuiltLayer(ForeignLayer):
    """A layer that is a transform of torch.distributions, built anew for each call."""

    # Where Pyro has no inverse, it says that its cache does not hold it.
    missing = (NotImplementedError, KeyError)

    @abstractmethod
    def build(self, context: Tensor | None) -> Transform:
        """The transform under a context, without any cached values."""

    def evaluate(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for part in self._parts(side, x, context):
            self._require_inside(part.domain, x)
            if hasattr(part, "call_and_ladj"):
                y, ladj = part.call_and_ladj(x)
            else:
                y = part(x)
                ladj = part.log_abs_det_jacobian(x, y)
            batch = x.shape[: x.dim() - part.domain.event_dim]
            # A `StackTransform` has a log-det for each entry, whatever its domain says.
            ladj = ladj.expand(batch) if ladj.dim() <= len(batch) else ladj
            total = total + (ladj if ladj.dim() == 1 else ladj.flatten(1).sum(1))
            x = y
        return x, total

    def value(self, side: str, x: Tensor, context: Tensor | None) -> Tensor:
        for part in self._parts(side, x, context):
            self._require_inside(part.domain, x)
            x = part(x)
        return x

    def placed(self, context: Tensor, x: Tensor) -> Tensor:
        return context.squeeze(0) if context.dim() == 2 and len(context) == 1 else context

    def _parts(self, side: str, x: Tensor, context: Tensor | None) -> list[Transform]:
        """The transforms whose composition the side is."""
        transform = self.build(context)
        event_dim = max(transform.domain.event_dim, transform.codomain.event_dim)
        if x.dim() <= event_dim:
            raise ValueError(
                f"{self._name()} has events of {event_dim} dimensions, which a batch "
                f"of the shape {tuple(x.shape)} does not hold."
            )
        more = x.dim() - 1 - max(1, event_dim)
        if more and context is not None and context.dim() == 2:
            # Shapes are aligned from the right, and the rows of the context are samples.
            transform = self.build(context.unflatten(0, (-1, *[1] * more)))
        return parts_of(transform if side == "forward" else transform.inv)

    def _require_inside(self, domain: constraints.Constraint, x: Tensor) -> None:
        while isinstance(domain, constraints.independent):
            domain = domain.base_constraint
        if domain is not constraints.real and not concrete(domain.check(x)).all():
            raise InputOutsideDomain(
                f"{self._name()} takes values in {domain}, and some of x, which lie in "
                f"{span(x)}, are outside."
            )


class TransformLayer(BuiltLayer):
    """A transform of torch.distributions as a layer; `forward` is its call, base to sample.

    Its modules and parameters are those of the layer, wherever in the transform they are, and its
    other tensors are buffers.
    """

    generates = True

    def __init__(self, transform: Transform) -> None:
        super().__init__(transform)
        self.parts = nn.Module()
        renewed(transform, self._register)

    def build(self, context: Tensor | None) -> Transform:
        return renewed(self.guest, lambda name, part: getattr(self.parts, place_of(name), part))

    def __getstate__(self) -> dict[str, Any]:
        """The state without what the host has cached, which can be neither copied nor pickled."""
        return {**vars(TransformLayer(self.build(None))), "training": self.training}

    @property
    def takes_context(self) -> bool:
        return False

    @property
    def event_dim(self) -> int:
        return max(1, self.guest.domain.event_dim)

    @property
    def sign(self) -> int:
        return self.build(None).sign

    def _register(self, name: str, part: Any) -> Any:
        place = place_of(name)
        if isinstance(part, nn.Parameter):
            self.parts.register_parameter(place, part)
        elif isinstance(part, Tensor):
            self.parts.register_buffer(place, part)
        elif not any(part is module for module in self.modules()):
            self.parts.add_module(place, part)
        return part


def place_of(name: str) -> str:
    """A name that torch lets a module give to a tensor or a module."""
    name = name.replace(".", "_")
    return f"{name}_" if name in TORCH_ATTRIBUTES or hasattr(nn.Module, name) else name


def parts_of(transform: Transform) -> list[Transform]:
    """The transforms that it is composed of, each of which has a domain of its own."""
    if not isinstance(transform, ComposeTransform):
        return [transform]
    return [part for each in transform.parts for part in parts_of(each)]


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, _InverseTransform):
        guest = recognised(transform.inv)
        return None if guest is None else guest.reversed()
    if isinstance(transform, LayerTransform) and transform.context is None:
        return Guest.of(
            transform.layer,
            generates=True,
            own=transform.explicit,
            event_dim=transform.domain.event_dim,
        )
    if not isinstance(transform, Transform):
        return None
    if not transform.bijective:
        raise TypeError(
            f"{type(transform).__name__} is not bijective: no density goes through it."
        )
    return Guest.of(TransformLayer(transform))
