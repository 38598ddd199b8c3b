"""Affine maps of each channel."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_channels, check_count
from iresnet_flows.layers.contract import Layer

__all__ = ["ElementwiseAffine"]


class ElementwiseAffine(Layer):
    r"""The map :math:`y = e^{s} \circ x + t` with learned :math:`s, t`, the identity at first.

    Between residual blocks it carries what a Lipschitz constant below one cannot: scale. Pixels
    of an image share the numbers of their channel. Costs O(d).

    Arguments:
        features: The dimension d of x, or the channels of images.

    Shapes:
        x and y (B, features) or (B, features, \*space), logabsdet (B,) in nats.

    Example:
        >>> import torch
        >>> y, logabsdet = ElementwiseAffine(3)(torch.randn(5, 3))
        >>> logabsdet
        tensor([0., 0., 0., 0., 0.], grad_fn=<RepeatBackward0>)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        check_count("features", features)
        self.features = features
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, context), self.log_abs_det(x)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.invert(y, context), -self.log_abs_det(y)

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check("x", x)
        return x * per_channel(self.log_scale.exp(), x) + per_channel(self.shift, x)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        self.check("y", y)
        return (y - per_channel(self.shift, y)) * per_channel(self.log_scale.neg().exp(), y)

    def log_abs_det(self, x: Tensor) -> Tensor:
        """That of the map, for samples like x."""
        pixels = math.prod(x.shape[2:])
        return (self.log_scale.sum() * pixels).repeat(len(x))

    def check(self, name: str, x: Tensor) -> None:
        check_channels(name, x, self.features, self.shift.dtype)

    def extra_repr(self) -> str:
        return f"features={self.features}"


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(-1, *[1] * (x.dim() - 2))
