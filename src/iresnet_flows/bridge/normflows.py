"""normflows' flows as layers."""

from __future__ import annotations

from inspect import signature
from typing import Any

from normflows.flows import Composite, Flow, HamiltonianMonteCarlo, MetropolisHastings, Reverse
from torch import Tensor

from iresnet_flows.bridge.guests import OTHER, ForeignLayer, Guest, per_sample
from iresnet_flows.normflows import LayerFlow

__all__ = ["NormflowsLayer", "recognised"]


class NormflowsLayer(ForeignLayer):
    """A normflows `Flow` as a layer; `forward` takes latent to data."""

    generates = True

    def evaluate(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        return run(self.guest, side, x, context)


def run(flow: Flow, side: str, z: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
    """One side of a flow, with its context if it takes one.

    normflows' own `Reverse` and `Composite` take none, and `Composite` adds log-dets in single
    precision on the CPU, so that they are gone through here.
    """
    if type(flow) is Reverse:
        return run(flow.flow, OTHER[side], z, context)
    if type(flow) is Composite:
        total = per_sample(0.0, z)
        for part in flow._flows if side == "forward" else reversed(flow._flows):
            z, ladj = run(part, side, z, context)
            total = total + per_sample(ladj, z)
        return z, total

    function = flow if side == "forward" else flow.inverse
    if context is None or "context" not in signature(getattr(flow, side)).parameters:
        return function(z)
    return function(z, context=context)


def recognised(transform: Any) -> Guest | None:
    if isinstance(transform, (HamiltonianMonteCarlo, MetropolisHastings)):
        raise TypeError(
            f"{type(transform).__name__} moves its samples at random: it is no map that another "
            "host could invert."
        )
    if isinstance(transform, LayerFlow):
        return Guest.of(transform.layer, generates=True, own=transform.explicit)
    if isinstance(transform, Flow):
        return Guest.of(NormflowsLayer(transform))
    return None
