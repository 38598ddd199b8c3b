"""The residual network that the invertible ones are compared with."""

from __future__ import annotations

from torch import Tensor, nn

from iresnet_flows.checks import check_count
from iresnet_flows.models.classifiers import CENTRE, SPREAD, pooled_head

__all__ = ["PreActivationResNet"]

EXPANSION = 4
STRIDES = (1, 2, 2)


class PreActivationResNet(nn.Module):
    """A residual network of bottlenecks whose activations come before the convolutions.

    Three stages of (depth - 2) / 9 bottlenecks each, of `width`, 2 `width` and 4 `width` channels
    within and four times as many between them; the later two stages halve height and width.

    Arguments:
        channels: The channels of an image.
        classes: The number of classes.
        depth: The number of layers, 9 n + 2.
        width: The channels within the first bottlenecks.
        stride: That of the first convolution.

    Shapes:
        x (B, channels, H, W) in [0, 1], logits (B, classes).

    Raises:
        ValueError: The depth is none of 11, 20, 29, ...

    References:
        He et al., Identity Mappings in Deep Residual Networks, 2016.

    Example:
        >>> import torch
        >>> PreActivationResNet(3, 10, depth=11)(torch.rand(5, 3, 32, 32)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self, channels: int, classes: int, depth: int = 164, width: int = 16, stride: int = 1
    ) -> None:
        super().__init__()
        sizes = {"channels": channels, "classes": classes, "width": width, "stride": stride}
        for name, value in sizes.items():
            check_count(name, value)
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(f"depth must be 9 n + 2 with n of at least 1, got {depth!r}.")

        self.stem = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        blocks: list[nn.Module] = []
        narrow = width
        for stage, step in enumerate(STRIDES):
            for index in range((depth - 2) // 9):
                hidden = width * 2**stage
                blocks.append(Bottleneck(narrow, hidden, 1 if index else step))
                narrow = EXPANSION * hidden
        self.blocks = nn.Sequential(*blocks)
        self.head = pooled_head(narrow, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """The logits of images."""
        logits: Tensor = self.head(self.blocks(self.stem((x - CENTRE) / SPREAD)))
        return logits


class Bottleneck(nn.Module):
    """x + g(a), with a the activated x, or P a + g(a) where the shape changes.

    Arguments:
        channels: The channels of x.
        hidden_channels: Those within; four times as many go out.
        stride: That of the 3 x 3 convolution.
    """

    def __init__(self, channels: int, hidden_channels: int, stride: int) -> None:
        super().__init__()
        out = EXPANSION * hidden_channels
        self.activate = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.branch = nn.Sequential(
            nn.Conv2d(channels, hidden_channels, 1, bias=False),
            nn.BatchNorm2d(hidden_channels),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, hidden_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(hidden_channels),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, out, 1, bias=False),
        )
        changes = stride > 1 or channels != out
        self.project = nn.Conv2d(channels, out, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        active = self.activate(x)
        kept: Tensor = x if self.project is None else self.project(active)
        value: Tensor = self.branch(active)
        return kept + value
