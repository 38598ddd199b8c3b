"""The densities that the paper's Table 4 puts beside i-ResNet, made of the layers of nflows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from nflows.nn.nets import ConvResidualNet
from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
from nflows.transforms.base import (
    CompositeTransform,
    MultiscaleCompositeTransform,
    Transform,
)
from nflows.transforms.conv import OneByOneConvolution
from nflows.transforms.coupling import AdditiveCouplingTransform, AffineCouplingTransform
from nflows.transforms.permutations import ReversePermutation
from nflows.transforms.reshape import SqueezeTransform
from torch import Tensor, nn
import math
from iresnet_flows.bridge import to_nflows
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.images.hosted import Flatten, HostedDensity
from iresnet_flows.experiments.images.recipes import Recipe, Shape
from iresnet_flows.experiments.widths import fitting_width
from iresnet_flows.ffjord import FFJORD
from iresnet_flows.layers import ActNorm, ElementwiseAffine


def squeezes(shape: Shape, most: int, title: str) -> int:
    """How often height and width can be halved, at most that often."""
    _, height, width = shape
    count = 0
    while count < most and not height % 2 and not width % 2:
        height, width, count = height // 2, width // 2, count + 1
    if not count:
        raise UsageError(
            f"{title} halves height and width, and images of {shape} have an odd one: crop them "
            "to even sizes, or take made, maf or ffjord."
        )
    return count


def multiscale(
    shape: Shape, levels: int, steps: Callable[[int, int], Iterator[Transform]]
) -> Transform:
    """Levels of squeeze and steps, half of the channels leaving after each but the last.

    Arguments:
        shape: That of an image.
        levels: The number of levels.
        steps: Gives the steps of a level from its channels and its number.
    """
    channels, height, width = shape
    scales = MultiscaleCompositeTransform(levels)
    for level in range(levels):
        channels, height, width = 4 * channels, height // 2, width // 2
        parts = CompositeTransform([SqueezeTransform(), *steps(channels, level)])
        scales.add_transform(parts, (channels, height, width))
        channels //= 2
    return CompositeTransform([scales, scale(shape)])


def scale(shape: Shape) -> Transform:
    """Learned means and deviations of the latents."""
    return to_nflows(ElementwiseAffine(math.prod(shape)))


def halves(channels: int) -> list[Tensor]:
    """Masks of the couplings of RealNVP: three checkerboards of pixels, three halves of channels.

    After a squeeze, a checkerboard is the first and the last of each four channels.
    """
    board = torch.tensor([1, -1, -1, 1]).repeat(channels // 4)
    half = torch.ones(channels)
    half[: channels // 2] = -1
    return [board, -board, board, half, -half, half]


def net(fan_in: int, fan_out: int, width: int, blocks: int) -> nn.Module:
    """A residual net whose output begins at zero, so that couplings begin as the identity."""
    module = ConvResidualNet(fan_in, fan_out, hidden_channels=width, num_blocks=blocks)
    nn.init.zeros_(module.final_layer.weight)
    nn.init.zeros_(module.final_layer.bias)
    return module


def nice(shape: Shape, width: int, levels: int, blocks: int, alpha: float) -> nn.Module:
    def steps(channels: int, level: int) -> Iterator[Transform]:
        for mask in halves(channels):
            make = partial(net, width=width << level, blocks=blocks)
            yield AdditiveCouplingTransform(mask, make)

    levels = squeezes(shape, levels, "NICE")
    return HostedDensity(shape, multiscale(shape, levels, steps), alpha)


def realnvp(shape: Shape, width: int, levels: int, blocks: int, alpha: float) -> nn.Module:
    def steps(channels: int, level: int) -> Iterator[Transform]:
        for mask in halves(channels):
            make = partial(net, width=width << level, blocks=blocks)
            yield to_nflows(ActNorm(channels))
            yield AffineCouplingTransform(mask, make)

    levels = squeezes(shape, levels, "RealNVP")
    return HostedDensity(shape, multiscale(shape, levels, steps), alpha)


def glow(shape: Shape, width: int, levels: int, depth: int, blocks: int, alpha: float) -> nn.Module:
    def steps(channels: int, level: int) -> Iterator[Transform]:
        *_, half = halves(channels)
        for _ in range(depth):
            make = partial(net, width=width << level, blocks=blocks)
            yield to_nflows(ActNorm(channels))
            yield OneByOneConvolution(channels)
            yield AffineCouplingTransform(half, make)

    levels = squeezes(shape, levels, "Glow")
    return HostedDensity(shape, multiscale(shape, levels, steps), alpha)


def ffjord(shape: Shape, width: int, hidden: int, layers: int, alpha: float, tol: float, norm: bool = True) -> nn.Module:
    d = math.prod(shape)
    parts = [Flatten(shape)]
    for _ in range(layers):
        parts += [
            to_nflows((ActNorm if norm else ElementwiseAffine)(d)),
            to_nflows(FFJORD(d, hidden * (width,), atol=tol, rtol=tol)),
        ]
    return HostedDensity(shape, CompositeTransform([*parts, scale(shape)]), alpha)


def autoregressive(shape: Shape, width: int, layers: int, blocks: int, alpha: float, norm=True) -> nn.Module:
    d = math.prod(shape)
    parts = [Flatten(shape)]
    for index in range(layers):
        if index:
            parts.append(ReversePermutation(d))
        if norm:
            parts.append(to_nflows(ActNorm(d)))
        parts.append(
            MaskedAffineAutoregressiveTransform(
                d, width, num_blocks=blocks, use_residual_blocks=False, random_mask=True
            )
        )
    return HostedDensity(shape, CompositeTransform([*parts, scale(shape)]), alpha)
