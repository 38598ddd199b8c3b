"""The densities that the paper's Table 4 puts beside i-ResNet, and their training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn
from torch.optim import Adam, Adamax

from iresnet_flows.experiments.images.architectures import (
    autoregressive,
    ffjord,
    glow,
    nice,
    realnvp,
    residual,
)
from iresnet_flows.experiments.images.densities import DENSITIES
from iresnet_flows.experiments.images.recipes import Recipe, Shape, quick_recipe
from iresnet_flows.experiments.upkeep import update_normflows
from iresnet_flows.experiments.widths import fitting_width, parameters

__all__ = ["RIVALS"]

Make = Callable[[Shape, int], nn.Module]


def as_large_as_ours(family: Make) -> Make:
    """Of the width whose parameters are nearest to those of the quick i-ResNet."""

    def make(shape: Shape, classes: int) -> nn.Module:
        ours = DENSITIES["quick"]["i-resnet"].make
        target = parameters(lambda _: ours(shape, classes), 0)
        wide = partial(family, shape)
        return wide(fitting_width(wide, target))

    return make


def of_width(width: int, family: Make) -> Make:
    """Of that width, whatever the images are."""
    return lambda shape, _classes: family(shape, width)


SIZE = "; the width that gives it the parameters of the quick i-ResNet"
QUICK = (
    quick_recipe(
        "nice",
        "NICE",
        "2 scales of 6 additive couplings of nflows with the masks of RealNVP, residual nets of 1 "
        f"block, then a scale for each latent{SIZE}",
        as_large_as_ours(nice),
        partial(Adam, lr=3e-3),
        batch=32,
    ),
    quick_recipe(
        "realnvp",
        "Real NVP",
        "2 scales of 6 affine couplings of nflows with the masks of RealNVP, residual nets of 1 "
        f"block, ActNorm before each{SIZE}",
        as_large_as_ours(realnvp),
        partial(Adam, lr=1e-2),
        batch=32,
    ),
    quick_recipe(
        "glow",
        "Glow",
        "2 scales of 6 steps of ActNorm, 1x1 convolution and affine coupling of nflows, residual "
        f"nets of 1 block{SIZE}",
        as_large_as_ours(glow),
        partial(Adam, lr=5e-3),
        batch=32,
    ),
    quick_recipe(
        "ffjord",
        "FFJORD",
        "1 continuous layer on the flattened image, dopri5 at 1e-3 on torchdiffeq, MLP of 2 "
        f"hidden layers with exact trace{SIZE}",
        as_large_as_ours(ffjord),
        partial(Adam, lr=3e-3),
        batch=64,
    ),
    quick_recipe(
        "made",
        "MADE",
        f"1 masked autoregressive layer of nflows, 2 hidden layers, random masks{SIZE}",
        as_large_as_ours(partial(autoregressive, layers=1)),
        partial(Adam, lr=3e-3),
        batch=64,
    ),
    quick_recipe(
        "maf",
        "MAF",
        "5 masked autoregressive layers of nflows, 2 hidden layers each, random masks, ActNorm "
        f"before each{SIZE}",
        as_large_as_ours(partial(autoregressive, layers=5)),
        partial(Adam, lr=3e-3),
        batch=64,
    ),
    quick_recipe(
        "normflows-residual",
        "Residual (normflows)",
        "2 scales of 8 of normflows' Residual, LipschitzCNN of 3x3-1x1-3x3 and Swish, with its "
        "defaults, ActNorm before each; update_lipschitz after each step; in training its log-det "
        f"is a surrogate with the right gradient, not a value{SIZE}",
        as_large_as_ours(residual),
        partial(Adam, lr=1e-2),
        batch=32,
        after_step=update_normflows,
    ),
)
PAPER = (
    Recipe(
        "nice",
        "NICE",
        "3 scales at most of 6 additive couplings of nflows, residual nets of 8 blocks and 64 "
        "channels, twice as many after each squeeze: convolutions where the original is dense",
        of_width(64, partial(nice, levels=3, blocks=8)),
        partial(Adam, lr=1e-3),
        batch=64,
        clip=1.0,
    ),
    Recipe(
        "realnvp",
        "Real NVP",
        "3 scales at most of 6 affine couplings of nflows, residual nets of 8 blocks and 64 "
        "channels, twice as many after each squeeze, as the original has for 32 x 32 images",
        of_width(64, partial(realnvp, levels=3, blocks=8)),
        partial(Adam, lr=1e-3),
        batch=64,
        clip=1.0,
    ),
    Recipe(
        "glow",
        "Glow",
        "3 scales at most of 32 steps of ActNorm, 1x1 convolution and affine coupling of nflows, "
        "residual nets of 1 block and 64 channels, twice as many after each squeeze",
        of_width(64, partial(glow, levels=3, depth=32)),
        partial(Adamax, lr=1e-3),
        batch=64,
        clip=1.0,
    ),
    Recipe(
        "ffjord",
        "FFJORD",
        "1 continuous layer on the flattened image, dopri5 at 1e-3 on torchdiffeq, MLP of 2 "
        "hidden layers of 1024 with exact trace: dense where the original has convolutions",
        of_width(1024, ffjord),
        partial(Adam, lr=1e-3),
        batch=200,
        clip=1.0,
    ),
    Recipe(
        "made",
        "MADE",
        "1 masked autoregressive layer of nflows, 2 hidden layers of 1024, random masks",
        of_width(1024, partial(autoregressive, layers=1)),
        partial(Adam, lr=1e-4),
        batch=100,
    ),
    Recipe(
        "maf",
        "MAF",
        "5 masked autoregressive layers of nflows, 2 hidden layers of 1024 each, random masks, "
        "ActNorm before each in the place of batch normalisation",
        of_width(1024, partial(autoregressive, layers=5)),
        partial(Adam, lr=1e-4),
        batch=100,
    ),
    Recipe(
        "normflows-residual",
        "Residual (normflows)",
        "3 scales at most of 32 of normflows' Residual, LipschitzCNN of 3x3-1x1-3x3 of 512 "
        "channels and Swish, with its defaults, ActNorm before each; update_lipschitz after each "
        "step; in training its log-det is a surrogate with the right gradient, not a value",
        of_width(512, partial(residual, levels=3, depth=32)),
        partial(Adamax, lr=1e-3),
        batch=64,
        after_step=update_normflows,
    ),
)
RIVALS: dict[str, dict[str, Recipe]] = {
    scale: {recipe.name: recipe for recipe in recipes}
    for scale, recipes in (("quick", QUICK), ("paper", PAPER))
}
"""By scale and name."""
