"""Masked autoregressive flows of nflows."""

from __future__ import annotations

from nflows.distributions.normal import StandardNormal
from nflows.flows.base import Flow
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import CompositeTransform, Transform
from nflows.transforms.permutations import ReversePermutation

from iresnet_flows.experiments.comparison.contenders.recipes import Contender

__all__ = ["AUTOREGRESSIVE", "made", "maf"]


def made(features: int, width: int, context_features: int | None = None) -> Flow:
    return autoregressive(1, features, width, context_features)


def maf(features: int, width: int, context_features: int | None = None) -> Flow:
    return autoregressive(5, features, width, context_features)


def autoregressive(count: int, features: int, width: int, context_features: int | None) -> Flow:
    """So many layers, each in the reverse order of the one before."""
    steps: list[Transform] = []
    for _ in range(count):
        layer = MaskedAffineAutoregressiveTransform(features, width, context_features)
        steps += [ReversePermutation(features), layer]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


AUTOREGRESSIVE = (
    Contender(
        "made",
        "MADE",
        "1 masked autoregressive layer of nflows, 2 residual blocks",
        made,
        learning_rate=3e-3,
        least_features=2,
        width=64,
    ),
    Contender(
        "maf",
        "MAF",
        "5 masked autoregressive layers of nflows, 2 residual blocks each",
        maf,
        learning_rate=1e-2,
        least_features=2,
        width=64,
    ),
)
