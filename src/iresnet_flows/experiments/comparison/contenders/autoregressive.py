"""Masked autoregressive flows of nflows."""

from __future__ import annotations

from nflows.flows.autoregressive import MaskedAutoregressiveFlow
from nflows.flows.base import Flow

from iresnet_flows.experiments.comparison.contenders.recipes import Contender

__all__ = ["AUTOREGRESSIVE", "made", "maf"]


def made(features: int, width: int) -> Flow:
    return MaskedAutoregressiveFlow(features, width, num_layers=1, num_blocks_per_layer=2)


def maf(features: int, width: int) -> Flow:
    return MaskedAutoregressiveFlow(features, width, num_layers=5, num_blocks_per_layer=2)


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
        learning_rate=3e-3,
        least_features=2,
        width=64,
    ),
)
