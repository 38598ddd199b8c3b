"""Residual blocks, and any layer of this package, as normflows flows."""

from __future__ import annotations

from torch import Tensor

from iresnet_flows.adapters import BlockAdapter
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.checks import check_explicit
from iresnet_flows.errors import MissingExtra
from iresnet_flows.layers.contract import Layer, require_layer

try:
    from normflows.flows import Flow
except ImportError as error:
    raise MissingExtra("normflows", "normflows") from error

__all__ = ["InvertibleResidual", "LayerFlow"]


class LayerFlow(Flow):
    """A layer as a normflows flow; `forward` maps latent to data.

    Arguments:
        layer: A layer of this package.
        explicit: The side that is the layer itself, ``"inverse"`` (fast `log_prob`) or
            ``"forward"`` (fast `sample`).

    Raises:
        TypeError: It is not a layer.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import ElementwiseAffine
        >>> z, log_det = LayerFlow(ElementwiseAffine(2)).inverse(torch.randn(5, 2))
    """

    def __init__(self, layer: Layer, explicit: str = "inverse") -> None:
        super().__init__()
        check_explicit(explicit)
        self.layer = require_layer(layer)
        self.explicit = explicit

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        side = self.layer if self.explicit == "forward" else self.layer.inverse
        return side(z, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        side = self.layer.inverse if self.explicit == "forward" else self.layer
        return side(z, context)


class InvertibleResidual(BlockAdapter, LayerFlow):
    r"""A residual block :math:`x + g(x)` as a normflows flow.

    Arguments:
        block: The block.
        explicit: The side that computes :math:`x + g(x)`; the other one is solved. With
            ``"inverse"``, data to latent, `log_prob` and `forward_kld` are explicit and `sample`
            iterates; with ``"forward"`` it is the other way around, for `reverse_kld`. They are
            ``reverse=True`` and ``reverse=False`` of normflows' own ``Residual``.

    Shapes:
        z ``(B, *event)``, context ``(B, *context_event)``, log-det (B,) in nats.

    Raises:
        InverseNotConverged: The solved side missed its tolerance.
        ValueError: A shape does not fit, or the context is missing or not asked for.
        TypeError: The dtype is not the block's, or the block is none.

    Example:
        >>> import torch
        >>> import normflows as nf
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> base = nf.distributions.DiagGaussian(2)
        >>> flow = nf.NormalizingFlow(base, [InvertibleResidual(block)])
        >>> flow.log_prob(torch.randn(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, block: InvertibleResidualBlock, explicit: str = "inverse") -> None:
        super().__init__(block, explicit)
