"""Couplings of nflows: NICE, i-RevNet, Real-NVP, Glow and neural spline flows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.nn.nets import ResidualNet
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.coupling import (
    AdditiveCouplingTransform,
    AffineCouplingTransform,
    PiecewiseRationalQuadraticCouplingTransform,
)
from nflows.transforms.lu import LULinear
from nflows.transforms.normalization import ActNorm
from torch import Tensor, nn

from iresnet_flows.bridge import to_nflows
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.layers import ElementwiseAffine

__all__ = ["COUPLINGS", "glow", "i_revnet", "nice", "nsf", "realnvp"]

DEPTH = 8
BINS = 8
TAILS = 4.0


def nice(features: int, width: int, context_features: int | None = None) -> Flow:
    return scaled(i_revnet(features, width, context_features), features)


def i_revnet(features: int, width: int, context_features: int | None = None) -> Flow:
    return chained(AdditiveCouplingTransform, features, width, context_features)


def realnvp(features: int, width: int, context_features: int | None = None) -> Flow:
    # nflows' affine couplings scale by less than 1.001, so that alone they could only contract.
    flow = chained(AffineCouplingTransform, features, width, context_features)
    return scaled(flow, features)


def nsf(features: int, width: int, context_features: int | None = None) -> Flow:
    spline = partial(
        PiecewiseRationalQuadraticCouplingTransform,
        num_bins=BINS,
        tails="linear",
        tail_bound=TAILS,
    )
    return chained(spline, features, width, context_features)


def glow(
    features: int, width: int, context_features: int | None = None, depth: int = DEPTH
) -> Flow:
    steps = []
    for _ in range(depth):
        coupling = AffineCouplingTransform(alternating(features), nets(width, context_features))
        steps += [ActNorm(features), LULinear(features, identity_init=True), coupling]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


def chained(
    coupling: Callable[..., Transform], features: int, width: int, context_features: int | None
) -> Flow:
    """8 couplings, which move the one half of the features and the other in turn."""
    mask, make = alternating(features), nets(width, context_features)
    steps = [coupling(sign * mask, make) for _ in range(DEPTH // 2) for sign in (1, -1)]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


def scaled(flow: Flow, features: int) -> Flow:
    """The flow with a learned scale of each feature at its end."""
    scale = to_nflows(ElementwiseAffine(features))
    return Flow(CompositeTransform([flow._transform, scale]), StandardNormal([features]))


def alternating(features: int) -> Tensor:
    """A mask that moves every second feature."""
    mask = torch.ones(features)
    mask[::2] = -1
    return mask


def nets(width: int, context_features: int | None) -> Callable[[int, int], nn.Module]:
    """Makes the residual nets of that width."""
    return partial(
        ResidualNet, hidden_features=width, context_features=context_features, num_blocks=2
    )


COUPLINGS = (
    Contender(
        "nice",
        "NICE",
        "8 additive couplings of nflows, residual nets of 2 blocks, then a scale for each feature",
        nice,
        learning_rate=1e-2,
        least_features=2,
    ),
    Contender(
        "i-revnet",
        "i-RevNet",
        "8 additive couplings of nflows, residual nets of 2 blocks, and no scale",
        i_revnet,
        learning_rate=1e-2,
        least_features=2,
        remark="it keeps every volume: its density is that of the base, rearranged",
    ),
    Contender(
        "realnvp",
        "Real-NVP",
        "8 affine couplings of nflows, residual nets of 2 blocks, then a scale for each feature",
        realnvp,
        learning_rate=1e-2,
        least_features=2,
    ),
    Contender(
        "glow",
        "Glow",
        "8 steps of nflows' ActNorm, LULinear and affine coupling, residual nets of 2 blocks",
        glow,
        learning_rate=1e-2,
        least_features=2,
    ),
    Contender(
        "nsf",
        "Neural spline flow",
        "8 rational-quadratic couplings of nflows, 8 bins in (-4, 4) and linear tails, residual "
        "nets of 2 blocks",
        nsf,
        learning_rate=1e-2,
        least_features=2,
        origin="beyond",
    ),
)
