"""Layers in torch's distributions, for the tests of them and of their cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import hostile
from torch import Tensor
from torch.distributions import Independent, Normal

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.distributions import LayerTransform

__all__ = ["both_sides", "build", "normal", "points"]

both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])


def build(
    explicit: str = "forward", d: int = 2, context: Tensor | None = None, **kwargs: Any
) -> LayerTransform:
    features = None if context is None else context.shape[-1]
    g = LipschitzMLP(d, (8, 8), context_features=features).double()
    block = InvertibleResidualBlock(hostile(g), Exact())
    return LayerTransform(block, explicit, context, **kwargs)


def normal(d: int = 2) -> Independent:
    zero = torch.zeros(d, dtype=torch.float64)
    return Independent(Normal(zero, torch.ones_like(zero)), 1)


def points(*shape: int) -> Tensor:
    return torch.randn(*(shape or (5, 2)), dtype=torch.float64)
