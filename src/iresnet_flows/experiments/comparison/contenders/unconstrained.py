"""A residual network that nothing bounds, trained as if it were invertible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from nflows.transforms.base import CompositeTransform
from torch import Tensor, nn

from iresnet_flows.bridge import to_nflows
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.lipschitz import Activation
from iresnet_flows.lipschitz.activations import make_activations
from iresnet_flows.maps.linear import Matrix
from iresnet_flows.maps.perceptrons import Perceptron, weight_shapes
from iresnet_flows.models.unconstrained import IteratedBlock
from iresnet_flows.nflows import Flow, LayerTransform, StandardNormal

__all__ = ["UNCONSTRAINED", "PerceptronBlock", "PlainMLP", "TriedTransform", "resnet"]

DEPTH = 8


class PlainMLP(nn.Module):
    """The plain twin of `LipschitzMLP`: the same layers, with torch's weights.

    Arguments:
        features: The dimension d of x.
        hidden_features: The widths of the hidden layers.
        activation: A name or an `Activation`.

    Raises:
        ValueError: A width or the activation's name is out of range.
    """

    def __init__(
        self, features: int, hidden_features: Sequence[int], activation: str | Activation = "csin"
    ) -> None:
        super().__init__()
        activations = make_activations(hidden_features, activation)
        copies = [a.copies for a in activations]
        shapes = weight_shapes(features, hidden_features, copies)
        self.activations = nn.ModuleList(activations)
        self.layers = nn.ModuleList(nn.Linear(narrow, wide) for wide, narrow in shapes)

    def at(self) -> Perceptron:
        """The net with its present weights in place."""
        layers: list[Any] = list(self.layers)
        activations: list[Any] = list(self.activations)
        return Perceptron(
            tuple(Matrix(layer.weight) for layer in layers),
            tuple(layer.bias for layer in layers),
            tuple(a.at() for a in activations),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.at()(x)


class PerceptronBlock(IteratedBlock):
    """An `IteratedBlock` whose log-det is that of the net's narrowest cut.

    By Sylvester's identity, det(I + AB) = det(I + BA), which holds whatever the sign.

    Arguments:
        g: The net.
        steps: How often `invert` evaluates it.
    """

    g: PlainMLP

    def __init__(self, g: PlainMLP, steps: int = 100) -> None:
        super().__init__(g, steps)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, jacobian = self.g.at().linearize(x)
        core = jacobian.core()
        eye = torch.eye(core.shape[-1], dtype=core.dtype, device=core.device)
        return x + value, torch.linalg.slogdet(eye + core).logabsdet.sum(1)


class TriedTransform(LayerTransform):
    """An unconstrained block whose inverse is wherever the iteration ends.

    Its log-det is minus that of the block there, which is the inverse's own only where the
    iteration has found it.
    """

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = self.invert(inputs, context)
        return outputs, -self.forward(outputs, context)[1]


def resnet(features: int, width: int) -> Flow:
    features_of_entries = 2 * width  # a sine and a cosine
    steps = []
    for _ in range(DEPTH):
        block = PerceptronBlock(PlainMLP(features, (features_of_entries, features_of_entries)))
        steps += [to_nflows(ElementwiseAffine(features)), TriedTransform(block)]
    return Flow(CompositeTransform(steps), StandardNormal([features]))


UNCONSTRAINED = (
    Contender(
        "resnet",
        "ResNet",
        "8 residual blocks as those of i-ResNet, without any bound of their weights, trained on "
        "the change of variables as if they were invertible; inverted by 100 fixed-point steps",
        resnet,
        learning_rate=5e-3,
        weight_decay=1.0,
        remark="its number is no likelihood: the map need not be one-to-one, and then what the "
        "change of variables gives is no density",
        density=False,
    ),
)
