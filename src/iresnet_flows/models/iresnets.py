"""Invertible residual networks of images, in the shapes of the papers and smaller ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.checks import check_halves
from iresnet_flows.layers import ActNorm, Flatten, Layer, Logit, Squeeze, Stack
from iresnet_flows.lipschitz import LipschitzConvNet, LipschitzMLP
from iresnet_flows.lipschitz.branches import Branch
from iresnet_flows.logdet import Estimator
from iresnet_flows.models.multiscale import MultiScaleFlow

__all__ = ["ImageBlocks", "i_resnet_flow"]


@dataclass(frozen=True)
class ImageBlocks:
    """The residual blocks of an image model, each after an `ActNorm`.

    Arguments:
        hidden_channels: Those of `LipschitzConvNet`.
        kernel_sizes: Likewise.
        lipschitz: The bound of each branch.
        activation: That of the branches.
        log_det: The estimator, or None for the default.
        memory: ``full``, or ``low``, which trades a second evaluation for it.

    Example:
        >>> from iresnet_flows.models import ImageBlocks
        >>> blocks = ImageBlocks(hidden_channels=(8, 8))
        >>> [type(layer).__name__ for layer in blocks.convolutional(channels=3, count=1)]
        ['ActNorm', 'InvertibleResidualBlock']
    """

    hidden_channels: Sequence[int] = (64, 64)
    kernel_sizes: Sequence[int] = (3, 1, 3)
    lipschitz: float = 0.9
    activation: str = "csin"
    log_det: Estimator | None = None
    memory: Literal["full", "low"] = "full"

    def convolutional(self, channels: int, count: int) -> list[Layer]:
        """So many blocks of images."""
        layers: list[Layer] = []
        for _ in range(count):
            branch = LipschitzConvNet(
                channels,
                self.hidden_channels,
                self.kernel_sizes,
                self.lipschitz,
                activation=self.activation,
            )
            layers += [ActNorm(channels), self.block(branch)]
        return layers

    def connected(self, features: int, hidden_features: Sequence[int], count: int) -> list[Layer]:
        """So many blocks of vectors."""
        layers: list[Layer] = []
        for _ in range(count):
            branch = LipschitzMLP(
                features, hidden_features, self.lipschitz, activation=self.activation
            )
            layers += [ActNorm(features), self.block(branch)]
        return layers

    def block(self, branch: Branch) -> InvertibleResidualBlock:
        return InvertibleResidualBlock(branch, self.log_det, memory=self.memory)


def i_resnet_flow(
    event: Sequence[int],
    counts: Sequence[int],
    blocks: ImageBlocks | None = None,
    *,
    start: Layer | None = None,
    squeeze_first: bool = True,
    factor_out: bool = True,
    connected: tuple[int, ...] = (),
    classes: int | None = None,
) -> MultiScaleFlow:
    r"""The i-ResNet density of images in [0, 1]: residual blocks at several scales.

    Each scale but the first begins with a `Squeeze`; its blocks are free-form convolutions, so
    that no layer has to mix the channels. The paper's shape is `squeeze_first` with `factor_out`;
    Residual Flow's is without both, and ends with fully connected blocks.

    Arguments:
        event: The shape (C, H, W) of an image.
        counts: The number of blocks of each scale.
        blocks: What they are.
        start: The first layer, such as ``Logit(0.05)``, which is what None stands for; a
            ``Stack([])`` starts with the pixels as they are, which the first `ActNorm` centres.
        squeeze_first: Whether the first scale begins with a `Squeeze` too.
        factor_out: Whether each scale but the last lets go of half of its channels.
        connected: The widths of fully connected blocks at the end, one for each block.
        classes: The number of classes that the prior tells apart, or None. On scikit-learn's
            digits, draws of a class were the better without `factor_out`.

    Raises:
        ValueError: The image is of a size that the squeezes cannot halve, or there is no scale.

    References:
        Behrmann et al., Invertible Residual Networks, 2019; Chen et al., Residual Flows for
        Invertible Generative Modeling, 2019.

    Example:
        >>> import torch
        >>> small = ImageBlocks(hidden_channels=(8, 8), lipschitz=0.8)
        >>> flow = i_resnet_flow((1, 8, 8), (1, 1), small)
        >>> flow.log_prob(torch.rand(5, 1, 8, 8)).shape
        torch.Size([5])
    """
    if not counts:
        raise ValueError(f"counts must name the blocks of each scale, got {counts!r}.")
    blocks = blocks or ImageBlocks()
    check_halves(event, len(counts) - 1 + squeeze_first)

    shape = tuple(event)
    scales: list[list[Layer]] = [[Logit() if start is None else start]]
    for index, count in enumerate(counts):
        if index and factor_out:
            scales.append([])
            shape = (shape[0] // 2, *shape[1:])
        if index or squeeze_first:
            scales[-1].append(Squeeze())
            shape = Squeeze().event_of(shape)
        scales[-1] += blocks.convolutional(shape[0], count)

    if connected:
        scales[-1].append(Flatten(shape))
    for width in connected:
        scales[-1] += blocks.connected(math.prod(shape), (width, width), 1)
    return MultiScaleFlow([Stack(layers) for layers in scales], event, classes)
