"""Residual blocks of this package: i-ResNet and what came after it."""

from __future__ import annotations

from collections.abc import Callable

from nflows.transforms.base import CompositeTransform

from iresnet_flows.blocks.cayley import CayleyBlock
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.bridge import to_nflows
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.layers import ElementwiseAffine, Layer
from iresnet_flows.lipschitz import LipschitzDenseNet, LipschitzMLP
from iresnet_flows.logdet import Estimator, RussianRoulette
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.nflows import Flow, InvertibleResidualFlow, StandardNormal

__all__ = [
    "RESIDUAL",
    "ResidualFlowBlock",
    "i_densenet",
    "i_resnet",
    "monotone",
    "residual_flow",
]

DEPTH = 8
LIPSCHITZ = 0.97
ROULETTE = {
    "train": RussianRoulette(terms=2, continuation=0.5, heavy_tail="allow"),
    "eval": RussianRoulette(terms=20, continuation=0.5, heavy_tail="allow"),
}


class ResidualFlowBlock(InvertibleResidualBlock):
    """A block with the estimator of Residual Flows: 2 sure terms in training, 20 in scoring."""

    def estimator(self, jacobian: Jacobian) -> Estimator:
        return self.log_det or ROULETTE["train" if self.training else "eval"]


def i_resnet(features: int, width: int, context_features: int | None = None) -> Flow:
    return InvertibleResidualFlow(
        features,
        hidden_features=2 * width,  # a sine and a cosine of each entry
        num_layers=DEPTH,
        num_blocks_per_layer=2,
        context_features=context_features,
        lipschitz=LIPSCHITZ,
    )


def residual_flow(features: int, width: int, context_features: int | None = None) -> Flow:
    def block() -> Layer:
        hidden = (width, width)
        branch = LipschitzMLP(features, hidden, LIPSCHITZ, context_features, activation="lipswish")
        return ResidualFlowBlock(branch)

    return stacked(features, block)


def i_densenet(features: int, width: int, context_features: int | None = None) -> Flow:
    def block() -> Layer:
        growth = (2 * width, 2 * width)  # two features for each entry
        branch = LipschitzDenseNet(
            features, growth, LIPSCHITZ, context_features, activation="clipswish"
        )
        return InvertibleResidualBlock(branch)

    return stacked(features, block)


def monotone(features: int, width: int, context_features: int | None = None) -> Flow:
    def block() -> Layer:
        hidden = (2 * width, 2 * width)
        return CayleyBlock(
            LipschitzMLP(features, hidden, LIPSCHITZ, context_features, activation="csin")
        )

    return stacked(features, block)


def stacked(features: int, block: Callable[[], Layer]) -> Flow:
    """The flow of 8 such blocks, each after an elementwise affine layer."""
    layers = [layer for _ in range(DEPTH) for layer in (ElementwiseAffine(features), block())]
    steps = [to_nflows(layer) for layer in layers]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


RESIDUAL = (
    Contender(
        "i-resnet",
        "i-ResNet",
        "4 residual blocks of each feature alone, then 8 of MLP branches with 2 hidden layers, "
        "(sin, cos) activation, Lipschitz bound 0.97, an elementwise affine layer before each",
        i_resnet,
        learning_rate=1e-2,
        weight_decay=1.0,
    ),
    Contender(
        "residual-flow",
        "Residual Flow",
        "i-ResNet's MLP blocks with LipSwish and the roulette of Residual Flows: 2 sure terms, 20 "
        "in scoring, and a tail that goes on with probability 1/2; one probe",
        residual_flow,
        learning_rate=1e-2,
        weight_decay=1.0,
        origin="beyond",
        remark="its score is an unbiased estimate, not the exact log-det, and nothing certifies "
        "that the estimate's variance is finite",
    ),
    Contender(
        "i-densenet",
        "i-DenseNet",
        "8 blocks with densely connected branches of 2 hidden layers and CLipSwish",
        i_densenet,
        learning_rate=1e-2,
        weight_decay=1.0,
        width=16,
        origin="beyond",
    ),
    Contender(
        "monotone",
        "Monotone flow",
        "i-ResNet's MLP branches in Cayley blocks, which are solved in both directions",
        monotone,
        learning_rate=1e-2,
        weight_decay=1.0,
        origin="beyond",
    ),
)
