"""Pyro's conditional transforms as layers; its others are transforms of torch.distributions."""

from __future__ import annotations

from typing import Any

from pyro.distributions.conditional import ConditionalTransform, ConstantConditionalTransform
from torch import Tensor
from torch.distributions import Transform, constraints

from iresnet_flows.bridge.guests import Guest
from iresnet_flows.bridge.renewal import renewed
from iresnet_flows.bridge.torch import BuiltLayer
from iresnet_flows.bridge.torch import recognised as recognised_by_torch
from iresnet_flows.pyro import ConditionalLayerTransformModule

__all__ = ["ConditionalTransformLayer", "recognised"]


class ConditionalTransformLayer(BuiltLayer):
    """A Pyro `ConditionalTransform` as a layer; `forward` takes base to sample."""

    generates = True

    @property
    def takes_context(self) -> bool:
        return True

    @property
    def event_dim(self) -> int:
        domain = getattr(self.guest, "domain", constraints.real_vector)
        return max(1, domain.event_dim)

    def build(self, context: Tensor | None) -> Transform:
        if context is None:
            raise ValueError(f"{self._name()} is conditional: pass a context.")
        return renewed(self.guest.condition(context))


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, ConditionalLayerTransformModule):
        return Guest.of(
            transform.layer,
            generates=True,
            own=transform.explicit,
            event_dim=transform.event_dim,
            conditional=True,
        )
    if isinstance(transform, ConstantConditionalTransform):  # which is no module
        return recognised_by_torch(transform.transform)
    if isinstance(transform, ConditionalTransform):
        return Guest.of(ConditionalTransformLayer(transform))
    return None
