"""The residual flows of other libraries, in their own layers and with their own defaults."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor

from iresnet_flows.experiments.comparison.contenders.guests import as_flow
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.experiments.upkeep import update_normflows
from iresnet_flows.nflows import Flow, StandardNormal

__all__ = [
    "LIBRARIES",
    "FlowconTransform",
    "flowcon_flow",
    "normflows_residual",
]

DEPTH = 8


def normflows_residual(features: int, width: int) -> Flow:
    import normflows as nf

    layers: list[Any] = []
    for _ in range(DEPTH):
        net = nf.nets.LipschitzMLP([features, width, width, features])
        layers += [nf.flows.Residual(net), nf.flows.ActNorm(features)]
    base = nf.distributions.DiagGaussian(features, trainable=False)
    return as_flow(nf.NormalizingFlow(base, layers), features)


def flowcon_flow(features: int, width: int) -> Flow:
    library = import_module("flowcon.transforms")
    steps = []
    for _ in range(DEPTH):
        factory = library.iResBlock.Factory()
        factory.set_densenet(dimension=features, densenet_depth=2, densenet_growth=2 * width)
        block = factory.set_logabsdet_estimator().build()
        steps += [FlowconTransform(library.ActNorm(features)), FlowconTransform(block)]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


class FlowconTransform(Transform):
    """A transform of FlowConductor, which has the interface of nflows but not its class.

    Arguments:
        guest: The transform; it records gradients also where torch does not.
    """

    def __init__(self, guest: Any) -> None:
        super().__init__()
        self.guest = guest

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return as_recorded(*self.guest(inputs, context))

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return as_recorded(*self.guest.inverse(inputs, context))


def as_recorded(value: Tensor, logabsdet: Tensor) -> tuple[Tensor, Tensor]:
    """Both without a graph where torch records none."""
    if torch.is_grad_enabled():
        return value, logabsdet
    return value.detach(), logabsdet.detach()


LIBRARIES = (
    Contender(
        "normflows-residual",
        "Residual (normflows)",
        "8 times normflows' Residual, LipschitzMLP of 2 hidden layers and Swish, and ActNorm, "
        "with its defaults; update_lipschitz after each step",
        normflows_residual,
        learning_rate=3e-2,
        origin="beyond",
        width=64,
        remark="in training its log-det is a surrogate with the right gradient, not a value; its "
        "score is an unbiased estimate, exact at 2 features",
        after_step=update_normflows,
        requires="normflows",
    ),
    Contender(
        "flowcon",
        "iResBlock (FlowConductor)",
        "8 times FlowConductor's ActNorm and iResBlock, i-DenseNet of 2 hidden layers and "
        "CLipSwish, with its defaults",
        flowcon_flow,
        learning_rate=3e-2,
        origin="beyond",
        width=16,
        remark="in training its log-det is a surrogate with the right gradient, not a value; its "
        "score is exact, from d backward passes",
        requires="flowcon",
    ),
)
