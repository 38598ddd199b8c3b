"""What the tests of the Pyro side share: transforms as training leaves them, and a dense truth."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("pyro")

from cases import hostile
from torch import Tensor
from torch.distributions import Transform
from transform_cases import both_sides, normal, points

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.pyro import (
    ConditionalInvertibleResidual,
    InvertibleResidual,
    conditional_invertible_residual,
)

__all__ = [
    "TIGHT",
    "both_sides",
    "dense_ladj",
    "dense_log_prob",
    "make_conditional",
    "make_transform",
    "normal",
    "points",
    "total_gradient",
]

TIGHT = FixedPoint(atol=1e-13, rtol=1e-13)


def make_transform(
    explicit: str = "forward", features: int = 2, cache_size: int = 1
) -> InvertibleResidual:
    block = InvertibleResidualBlock(hostile(LipschitzMLP(features, (8, 6)).double()), None, TIGHT)
    return InvertibleResidual(block, explicit, cache_size=cache_size)


def make_conditional(
    explicit: str = "forward", features: int = 2, context: int = 3
) -> ConditionalInvertibleResidual:
    transform = conditional_invertible_residual(features, context, [8, 6], explicit, solver=TIGHT)
    return hostile(transform.double())


def dense_ladj(transform: Transform, x: Tensor) -> Tensor:
    """log|det(dy/dx)| of the dense Jacobian, with its gradient; x is (B, d)."""
    transform = transform.with_cache(0)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: transform(x).sum(0), x, create_graph=True
    )
    return torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet


def dense_log_prob(transform: Transform, y: Tensor) -> Tensor:
    """The base density and the determinant of the dense Jacobian; y is (B, d)."""
    inverse = transform.with_cache(0).inv
    return normal(y.shape[-1]).log_prob(inverse(y)) + dense_ladj(inverse, y)


def total_gradient(loss, y: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """The gradient of loss(y): through y, which depends on the parameters, and at y."""
    leaf = y.detach().requires_grad_()
    pull, *direct = torch.autograd.grad(loss(leaf), [leaf, *parameters], materialize_grads=True)
    through = torch.autograd.grad(y, parameters, pull, materialize_grads=True)
    return [a + b for a, b in zip(direct, through)]
