"""Invertible blocks: where a branch, a solver and an estimator meet."""

from iresnet_flows.blocks.cayley import CayleyBlock
from iresnet_flows.blocks.residual import InvertibleResidualBlock

__all__ = ["CayleyBlock", "InvertibleResidualBlock"]
