"""Additive couplings of images."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_count, check_tensor
from iresnet_flows.layers.contract import VolumePreserving

__all__ = ["AdditiveCoupling", "bottleneck"]


class AdditiveCoupling(VolumePreserving):
    r"""One half of the channels moves by a net of the other: :math:`y = (x_1, x_2 + f(x_1))`.

    It is inverted by subtraction, whatever f is, and its log-det is zero. With batch
    normalization in f, in train mode, the inverse is that of the same batch.

    Arguments:
        channels: The channels of x, an even number.
        net: The net f, from half of the channels to as many.
        first: Whether the first half moves, :math:`y = (x_1 + f(x_2), x_2)`.

    Shapes:
        x and y (B, channels, H, W), logabsdet (B,), zero.

    Raises:
        ValueError: The number of channels is odd.

    References:
        Dinh et al., NICE: Non-linear Independent Components Estimation, 2014.

    Example:
        >>> import torch
        >>> layer = AdditiveCoupling(4, bottleneck(2, 8)).eval()
        >>> x = torch.randn(5, 4, 8, 8)
        >>> bool(torch.allclose(layer.invert(layer.transform(x)), x, atol=1e-6))
        True
    """

    def __init__(self, channels: int, net: nn.Module, first: bool = False) -> None:
        super().__init__()
        check_count("channels", channels)
        if channels % 2:
            raise ValueError(
                f"channels must be even, got {channels}: one half moves the other. Pad or "
                "squeeze the image."
            )
        self.channels = channels
        self.net = net
        self.first = first

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.moved(x, 1)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.moved(y, -1)

    def moved(self, x: Tensor, sign: int) -> Tensor:
        check_tensor("x", x)
        if x.dim() != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"x must have the shape (B, {self.channels}, H, W), got {tuple(x.shape)}."
            )
        left, right = x.chunk(2, 1)
        if self.first:
            return torch.cat((left + sign * self.net(right), right), 1)
        return torch.cat((left, right + sign * self.net(left)), 1)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, first={self.first}"


def bottleneck(channels: int, hidden_channels: int) -> nn.Module:
    """Three times BatchNorm, ReLU and a 3 x 3 convolution, with fewer channels in between."""
    parts: list[nn.Module] = []
    widths = (channels, hidden_channels, hidden_channels, channels)
    for narrow, wide in pairwise(widths):
        conv = nn.Conv2d(narrow, wide, 3, padding=1, bias=False)
        parts += [nn.BatchNorm2d(narrow), nn.ReLU(), conv]
    return nn.Sequential(*parts)
