"""Layers that change the shape of an image and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iresnet_flows.checks import check_count, check_event, check_tensor
from iresnet_flows.layers.contract import VolumePreserving

__all__ = ["Flatten", "InjectivePadding", "Squeeze"]


class Squeeze(VolumePreserving):
    """Each square of 2 x 2 pixels as one pixel of four times the channels.

    Shapes:
        x (B, C, H, W) with even H and W, y (B, 4 C, H / 2, W / 2).

    References:
        Dinh et al., Density Estimation Using Real NVP, 2017.

    Example:
        >>> import torch
        >>> Squeeze().transform(torch.randn(5, 3, 8, 8)).shape
        torch.Size([5, 12, 4, 4])
    """

    def event_of(self, event: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = event
        return 4 * channels, height // 2, width // 2

    def event_from(self, event: tuple[int, ...]) -> tuple[int, ...]:
        channels, height, width = event
        return channels // 4, 2 * height, 2 * width

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("x", x)
        if x.dim() != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(
                f"x must have the shape (B, C, H, W) with even H and W, got {tuple(x.shape)}."
            )
        # As `F.pixel_unshuffle`, which returns an empty batch as it is.
        squares = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        return squares.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("y", y)
        if y.dim() != 4 or y.shape[1] % 4:
            raise ValueError(
                "y must have the shape (B, C, H, W) with C a multiple of four, "
                f"got {tuple(y.shape)}."
            )
        squares = y.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return squares.flatten(4, 5).flatten(2, 3)


class Flatten(VolumePreserving):
    """Images as vectors, for fully connected blocks after the convolutions.

    Arguments:
        event: The shape of an image, such as (C, H, W).

    Shapes:
        x ``(B, *event)``, y (B, d) with the product d of the event.

    Example:
        >>> import torch
        >>> Flatten((3, 4, 4)).transform(torch.randn(5, 3, 4, 4)).shape
        torch.Size([5, 48])
    """

    def __init__(self, event: Sequence[int]) -> None:
        super().__init__()
        for size in event:
            check_count("each of event", size)
        self.event = tuple(event)

    def event_of(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(event),)

    def event_from(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return self.event

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_event("x", x, self.event)
        return x.flatten(1)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        check_event("y", y, (math.prod(self.event),))
        return y.reshape(-1, *self.event)

    def extra_repr(self) -> str:
        return f"event={self.event}"


class InjectivePadding(VolumePreserving):
    r"""Further channels of zeros: an isometry onto its image, with an inverse there.

    A residual network keeps the dimension of its input, and a classifier wants more of it. The
    layer is injective and not onto, so that there is no density on y; `inverse` drops the
    channels, whatever is in them. For the same reason its log-det is that of the isometry, zero.

    Arguments:
        channels: The number of further channels.

    Shapes:
        x (B, C, \*space), y (B, C + channels, \*space).

    References:
        Jacobsen et al., i-RevNet: Deep Invertible Networks, 2018.

    Example:
        >>> import torch
        >>> InjectivePadding(13).transform(torch.randn(5, 3, 8, 8)).shape
        torch.Size([5, 16, 8, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        check_count("channels", channels)
        self.channels = channels

    def event_of(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return event[0] + self.channels, *event[1:]

    def event_from(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return event[0] - self.channels, *event[1:]

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("x", x)
        if x.dim() < 2:
            raise ValueError(f"x must have the shape (B, C, *space), got {tuple(x.shape)}.")
        zeros = x.new_zeros(len(x), self.channels, *x.shape[2:])
        return torch.cat((x, zeros), 1)

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("y", y)
        if y.dim() < 2 or y.shape[1] <= self.channels:
            raise ValueError(
                f"y must have more than the {self.channels} channels of the padding, "
                f"got {tuple(y.shape)}."
            )
        return y[:, : -self.channels]

    def extra_repr(self) -> str:
        return f"channels={self.channels}"
