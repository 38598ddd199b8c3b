"""Transforms of torch.distributions, Pyro's among them, as layers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.distributions import Transform, constraints
from torch.distributions.transforms import _InverseTransform

from iresnet_flows.bridge.guests import ForeignLayer, Guest, span
from iresnet_flows.bridge.renewal import renewed
from iresnet_flows.concrete import concrete
from iresnet_flows.distributions import LayerTransform
from iresnet_flows.errors import InputOutsideDomain

__all__ = ["BuiltLayer", "TransformLayer", "recognised"]


class BuiltLayer(ForeignLayer):
    """A layer that is a transform of torch.distributions, built anew for each call."""

    # Where Pyro has no inverse, it says that its cache does not hold it.
    missing = (NotImplementedError, KeyError)

    @abstractmethod
    def build(self, context: Tensor | None) -> Transform:
        """The transform under a context, without any cached values."""

    def evaluate(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        way = self._way(side, x, context)
        if hasattr(way, "call_and_ladj"):
            y, ladj = way.call_and_ladj(x)
        else:
            y = way(x)
            ladj = way.log_abs_det_jacobian(x, y)
        ladj = ladj.expand(x.shape[: x.dim() - way.domain.event_dim])
        return y, ladj if ladj.dim() == 1 else ladj.flatten(1).sum(1)

    def value(self, side: str, x: Tensor, context: Tensor | None) -> Tensor:
        return self._way(side, x, context)(x)

    def _way(self, side: str, x: Tensor, context: Tensor | None) -> Transform:
        transform = self.build(context)
        way = transform if side == "forward" else transform.inv
        if x.dim() <= way.domain.event_dim:
            raise ValueError(
                f"{self._name()} has events of {way.domain.event_dim} dimensions, which a batch "
                f"of the shape {tuple(x.shape)} does not hold."
            )
        self._require_inside(way.domain, x)
        return way

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
        return renewed(self.guest, lambda name, part: getattr(self.parts, name, part))

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
        if isinstance(part, nn.Parameter):
            self.parts.register_parameter(name, part)
        elif isinstance(part, Tensor):
            self.parts.register_buffer(name, part)
        elif not any(part is module for module in self.modules()):
            self.parts.add_module(name, part)
        return part


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, _InverseTransform):
        guest = recognised(transform.inv)
        return None if guest is None else guest.reversed()
    if isinstance(transform, LayerTransform) and transform.context is None:
        return Guest.of(
            transform.layer,
            generates=transform.explicit == "forward",
            event_dim=transform.domain.event_dim,
        )
    if not isinstance(transform, Transform):
        return None
    if not transform.bijective:
        raise TypeError(
            f"{type(transform).__name__} is not bijective: no density goes through it."
        )
    return Guest.of(TransformLayer(transform))
