"""zuko's lazy transforms as layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.distributions import Transform
from zuko.lazy import LazyTransform

from iresnet_flows.bridge.guests import Guest
from iresnet_flows.bridge.renewal import renewed
from iresnet_flows.bridge.torch import BuiltLayer
from iresnet_flows.zuko import LayerLazyTransform

__all__ = ["LazyTransformLayer", "recognised"]


class LazyTransformLayer(BuiltLayer):
    """A zuko `LazyTransform` as a layer; `forward` takes data to noise."""

    generates = False

    def build(self, context: Tensor | None) -> Transform:
        return renewed(self.guest(context))


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, LayerLazyTransform):
        return Guest.of(
            transform.layer,
            generates=False,
            own=transform.explicit,
            event_dim=transform.event_dim,
        )
    if isinstance(transform, LazyTransform):
        return Guest.of(LazyTransformLayer(transform))
    return None
