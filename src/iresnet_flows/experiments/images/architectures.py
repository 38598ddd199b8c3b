"""The families of densities that i-ResNet is compared with, made of the layers of other libraries.

All of them begin with the logit of the pixels and end with a learned scale and shift of each
latent, an ActNorm. That is ours and not nflows', so that it starts alike on many devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from nflows.nn.nets import ConvResidualNet
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import CompositeTransform, MultiscaleCompositeTransform, Transform
from nflows.transforms.conv import OneByOneConvolution
from nflows.transforms.coupling import AdditiveCouplingTransform, AffineCouplingTransform
from nflows.transforms.permutations import ReversePermutation
from nflows.transforms.reshape import SqueezeTransform
from torch import Tensor, nn

from iresnet_flows.bridge import to_nflows
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.extras import optional
from iresnet_flows.experiments.images.hosted import Flatten, HostedDensity
from iresnet_flows.experiments.images.recipes import Shape, halvings
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.layers import ActNorm

__all__ = ["autoregressive", "ffjord", "glow", "nice", "realnvp", "residual"]

TOLERANCE = 1e-3


def nice(shape: Shape, width: int, levels: int = 2, blocks: int = 1) -> HostedDensity:
    """Additive couplings by the masks of RealNVP."""

    def steps(channels: int, level: int) -> Iterator[Transform]:
        for mask in masks(channels):
            yield AdditiveCouplingTransform(mask, partial(net, width << level, blocks))

    return multiscale(shape, levels, steps)


def realnvp(shape: Shape, width: int, levels: int = 2, blocks: int = 1) -> HostedDensity:
    """Affine couplings, with ActNorm before each of them in the place of batch normalisation."""

    def steps(channels: int, level: int) -> Iterator[Transform]:
        for mask in masks(channels):
            yield to_nflows(ActNorm(channels))
            yield AffineCouplingTransform(mask, partial(net, width << level, blocks))

    return multiscale(shape, levels, steps)


def glow(
    shape: Shape, width: int, levels: int = 2, depth: int = 6, blocks: int = 1
) -> HostedDensity:
    """Steps of ActNorm, 1x1 convolution and affine coupling."""

    def steps(channels: int, level: int) -> Iterator[Transform]:
        *_, half = masks(channels)
        for _ in range(depth):
            yield to_nflows(ActNorm(channels))
            yield OneByOneConvolution(channels)
            yield AffineCouplingTransform(half, partial(net, width << level, blocks))

    return multiscale(shape, levels, steps)


def residual(shape: Shape, width: int, levels: int = 2, depth: int = 8) -> HostedDensity:
    """normflows' residual blocks with convolutions of sizes 3, 1 and 3, and ActNorm before each.

    The distribution of the lengths of its series is fixed, since normflows gives it no gradient.

    Raises:
        MissingExtra: normflows is not installed.
    """
    nf = optional("normflows", "normflows", "normflows")
    _, *sides = shape

    def steps(channels: int, level: int) -> Iterator[Transform]:
        size = [side >> level + 1 for side in sides]
        for _ in range(depth):
            branch = nf.nets.LipschitzCNN([channels, width, width, channels], [3, 1, 3])
            with torch.no_grad():
                branch(torch.zeros(1, channels, *size))  # sizes its buffers, for states to load
            block = nf.flows.Residual(branch)
            for length in (block.iresblock.geom_p, block.iresblock.lamb):
                length.requires_grad_(False)
            yield to_nflows(ActNorm(channels))
            yield to_nflows(block)

    return multiscale(shape, levels, steps)


def ffjord(shape: Shape, width: int) -> HostedDensity:
    """One continuous layer on the flattened image, an MLP of two hidden layers, exact trace."""
    features = math.prod(shape)
    layer = FFJORD(features, (width, width), atol=TOLERANCE, rtol=TOLERANCE)
    return hosted(shape, [Flatten(shape), to_nflows(ActNorm(features)), to_nflows(layer)])


def autoregressive(shape: Shape, width: int, layers: int, blocks: int = 1) -> HostedDensity:
    """Masked autoregressive layers on the flattened image, with the order reversed between them.

    The masks are random: the regular ones of nflows let a layer of fewer units than pixels see
    the first pixels only.
    """
    features = math.prod(shape)
    parts: list[Transform] = [Flatten(shape)]
    for index in range(layers):
        if index:
            parts.append(ReversePermutation(features))
        layer = MaskedAffineAutoregressiveTransform(
            features, width, num_blocks=blocks, use_residual_blocks=False, random_mask=True
        )
        parts += [to_nflows(ActNorm(features)), layer]
    return hosted(shape, parts)


def multiscale(
    shape: Shape, most: int, steps: Callable[[int, int], Iterator[Transform]]
) -> HostedDensity:
    """Levels of a squeeze and steps, half of the channels leaving after each but the last.

    Arguments:
        shape: Channels, height and width.
        most: The number of levels, if the sides can be halved so often.
        steps: Gives the steps of a level from its channels and its number.

    Raises:
        UsageError: Height or width is odd.
    """
    levels = halvings(shape, most)
    if not levels:
        raise UsageError(
            f"coupling layers need images of even height and width, got {shape[1]} x {shape[2]}: "
            "crop or pad them, or take made, maf or ffjord."
        )

    channels, height, width = shape
    scales = MultiscaleCompositeTransform(levels)
    for level in range(levels):
        channels, height, width = 4 * channels, height // 2, width // 2
        level_steps = CompositeTransform([SqueezeTransform(), *steps(channels, level)])
        scales.add_transform(level_steps, (channels, height, width))
        channels //= 2
    return hosted(shape, [scales])


def hosted(shape: Shape, parts: Iterable[Transform]) -> HostedDensity:
    """The density of the parts and a scale and shift of each latent."""
    last = to_nflows(ActNorm(math.prod(shape)))
    alpha = 1e-6 if shape[0] == 1 else 0.05  # grey digits are black nearly everywhere
    return HostedDensity(shape, CompositeTransform([*parts, last]), alpha)


def masks(channels: int) -> list[Tensor]:
    """Those of RealNVP: three checkerboards of pixels, then three halves of the channels.

    After a squeeze, a checkerboard is the first and the last of each four channels.
    """
    board = torch.tensor([1, -1, -1, 1]).repeat(channels // 4)
    half = torch.ones(channels)
    half[: channels // 2] = -1
    return [board, -board, board, half, -half, half]


def net(width: int, blocks: int, fan_in: int, fan_out: int) -> nn.Module:
    """A residual net whose output is zero at first, so that couplings begin alike everywhere."""
    module = ConvResidualNet(fan_in, fan_out, hidden_channels=width, num_blocks=blocks)
    nn.init.zeros_(module.final_layer.weight)
    nn.init.zeros_(module.final_layer.bias)
    return module
