"""The layers of an i-ResNet of vectors, which every host's flow is made of."""

from __future__ import annotations

from collections.abc import Sequence

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.inverse import Newton, Solver
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.layers.contract import Layer
from iresnet_flows.lipschitz import (
    Activation,
    LipschitzElementwise,
    LipschitzMLP,
    make_activation,
)
from iresnet_flows.logdet import Estimator

__all__ = ["residual_layers"]

ENTRIES = 8
"""Hidden entries for each feature in an elementwise block."""


def residual_layers(
    features: int,
    hidden_features: Sequence[int],
    blocks: int,
    elementwise_blocks: int,
    context_features: int | None,
    lipschitz: float,
    activation: str | Activation,
    log_det: Estimator | None,
    solver: Solver | None,
) -> list[Layer]:
    """Blocks of each entry alone, then blocks of MLP branches, an affine layer before each.

    Arguments:
        features: The dimension d.
        hidden_features: The widths of the hidden layers of each MLP branch.
        blocks: The number of blocks with such a branch.
        elementwise_blocks: The number of blocks of `LipschitzElementwise`, at the data's side.
            Their log-dets are always exact.
        context_features: The dimension of the context, or None.
        lipschitz: The bound of each branch.
        activation: That of the branches.
        log_det: The estimator of each block with an MLP branch, None for its own choice.
        solver: The solver of each block, None for its own choice.
    """
    width = ENTRIES * make_activation(activation).copies
    layers: list[Layer] = []
    for _ in range(elementwise_blocks):
        each = LipschitzElementwise(features, width, lipschitz, context_features, activation)
        block = InvertibleResidualBlock(each, solver=solver or Newton())
        layers += [ElementwiseAffine(features), block]
    for _ in range(blocks):
        mlp = LipschitzMLP(features, hidden_features, lipschitz, context_features, activation)
        layers += [ElementwiseAffine(features), InvertibleResidualBlock(mlp, log_det, solver)]
    return layers
