"""Residual blocks, and any layer of this package, as nflows transforms."""

from __future__ import annotations

from torch import Tensor, nn

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.checks import check_explicit, check_features
from iresnet_flows.errors import MissingExtra
from iresnet_flows.inverse import Solver
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.layers.contract import Layer
from iresnet_flows.lipschitz import Activation, LipschitzMLP
from iresnet_flows.logdet import Estimator

try:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform, Transform
except ImportError as error:
    raise MissingExtra("nflows", "nflows") from error

__all__ = ["InvertibleResidualFlow", "InvertibleResidualTransform", "LayerTransform"]


class LayerTransform(Transform):
    """A layer as an nflows transform; `forward` maps data to noise.

    Arguments:
        layer: A layer of this package.
        explicit: The side that is the layer itself, ``"forward"`` (fast `log_prob`) or
            ``"inverse"`` (fast `sample`).
    """

    def __init__(self, layer: Layer, explicit: str = "forward") -> None:
        super().__init__()
        check_explicit(explicit)
        self.layer = layer
        self.explicit = explicit

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        side = self.layer if self.explicit == "forward" else self.layer.inverse
        return side(inputs, context)

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        side = self.layer.inverse if self.explicit == "forward" else self.layer
        return side(inputs, context)


class InvertibleResidualTransform(LayerTransform):
    r"""A residual block :math:`x + g(x)` as an nflows transform.

    Arguments:
        block: The block.
        explicit: The side that computes :math:`x + g(x)`; the other one is solved. With
            ``"forward"``, data to noise, `log_prob` is explicit and `sample` iterates.

    Shapes:
        inputs ``(B, *event)``, context ``(B, *context_event)``, logabsdet (B,) in nats.

    Raises:
        InverseNotConverged: The solved side missed its tolerance.

    Example:
        >>> import torch
        >>> from nflows.distributions.normal import StandardNormal
        >>> from nflows.flows.base import Flow
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> flow = Flow(InvertibleResidualTransform(block), StandardNormal([2]))
        >>> flow.log_prob(flow.sample(5)).shape
        torch.Size([5])
    """

    def __init__(self, block: InvertibleResidualBlock, explicit: str = "forward") -> None:
        super().__init__(block, explicit)

    @property
    def block(self) -> Layer:
        return self.layer


class InvertibleResidualFlow(Flow):
    """An i-ResNet with a standard normal base, to stand beside nflows' `SimpleRealNVP`.

    Each of its layers is an elementwise affine map and a residual block. `log_prob` is explicit,
    `sample` iterates.

    Arguments:
        features: The dimension d of the data.
        hidden_features: The width of the branches' hidden layers.
        num_layers: The number of residual blocks.
        num_blocks_per_layer: The number of hidden layers in each branch; up to 2, the trace of
            its Jacobian is cheap.
        context_features: The dimension of the (embedded) context, or None.
        lipschitz: The bound of each branch, in (0, 1).
        activation: That of the branches.
        log_det: The estimator of each block, None for its own choice.
        solver: The solver of each block, None for its own choice.
        embedding_net: Encodes the context, as in every nflows `Flow`.

    Example:
        >>> import torch
        >>> flow = InvertibleResidualFlow(3, 16, num_layers=4, num_blocks_per_layer=2)
        >>> flow.log_prob(torch.randn(5, 3)).shape
        torch.Size([5])
    """

    def __init__(
        self,
        features: int,
        hidden_features: int,
        num_layers: int,
        num_blocks_per_layer: int = 2,
        context_features: int | None = None,
        lipschitz: float = 0.97,
        activation: str | Activation = "csin",
        log_det: Estimator | None = None,
        solver: Solver | None = None,
        embedding_net: nn.Module | None = None,
    ) -> None:
        check_features("num_layers", num_layers)
        check_features("num_blocks_per_layer", num_blocks_per_layer)

        transforms: list[Transform] = []
        for _ in range(num_layers):
            branch = LipschitzMLP(
                features,
                (hidden_features,) * num_blocks_per_layer,
                lipschitz,
                context_features,
                activation,
            )
            transforms.append(LayerTransform(ElementwiseAffine(features)))
            transforms.append(
                InvertibleResidualTransform(InvertibleResidualBlock(branch, log_det, solver))
            )
        super().__init__(CompositeTransform(transforms), StandardNormal([features]), embedding_net)
