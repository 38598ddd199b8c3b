"""The classifiers of Tables 2 and 3, small and in the papers' sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn
from torch.optim import SGD, Adamax, AdamW

from iresnet_flows.experiments.images.glows import glow_classifier
from iresnet_flows.experiments.images.recipes import Recipe, Shape, halvings
from iresnet_flows.models import (
    Layout,
    PreActivationResNet,
    i_resnet_classifier,
    i_revnet_classifier,
    vanilla_classifier,
)
from iresnet_flows.models.classifiers import KERNELS

__all__ = ["CLAIMS", "CLASSIFIERS", "COEFFICIENTS"]

COEFFICIENTS = {
    "i-resnet": 0.9,
    "i-resnet-0.8": 0.8,
    "i-resnet-0.7": 0.7,
    "i-resnet-0.6": 0.6,
    "i-resnet-0.5": 0.5,
}
"""The papers' coefficient c of a convolution, by name."""

CLAIMS = {name: c ** len(KERNELS) for name, c in COEFFICIENTS.items()}
"""The bound that a branch then has."""

Make = Callable[[Shape, int], nn.Module]


@dataclass(frozen=True)
class Size:
    """The sizes of all classifiers of a scale.

    Arguments:
        text: What they are.
        layout: The stages of i-ResNet and its twin, from the shape of an image.
        hidden_channels: Those of their blocks, for each stage.
        revnet: The stages of i-RevNet, and how many times narrower its nets are.
        glow: The stages of Glow, the width of its nets, and that of residual blocks in its place.
        resnet: The depth and the width of the ResNet, and the stride of its first convolution.
    """

    text: str
    layout: Callable[[Shape], Layout]
    hidden_channels: tuple[int, ...]
    revnet: tuple[Layout, int]
    glow: tuple[Layout, int, int]
    resnet: tuple[int, int, int]


def quick_layout(shape: Shape) -> Layout:
    times = halvings(shape, 2)
    return Layout((1, 3), (times > 0, times > 1), padding=1)


def paper_layout(shape: Shape) -> Layout:
    """Sixteen channels at first; 21 blocks of grey images and 54 of others, as in section 5.1."""
    count, times = 7 if shape[0] == 1 else 18, halvings(shape, 2)
    return Layout((count,) * 3, (False, times > 0, times > 1), padding=max(0, 16 - shape[0]))


QUICK = Size(
    "squeezes to half and a quarter of the size where the sides allow, 1 and 3 blocks there of 16 "
    "hidden channels",
    quick_layout,
    (16, 16),
    (Layout((2, 4), (True, True), padding=1), 1),
    (Layout((2, 4), (True, True)), 32, 16),
    (11, 12, 2),
)
PAPER = Size(
    "16 channels, then 3 stages of 7 blocks (grey images) or 18 (others), of 32, 64 and 128 "
    "hidden channels, squeezes between where the sides allow",
    paper_layout,
    (32, 64, 128),
    (Layout((18, 18, 18), (False, True, True), padding=13), 4),
    (Layout((16, 16, 16), (True, True, True)), 512, 512),
    (164, 16, 1),
)


def titles(size: Size) -> dict[str, tuple[str, str]]:
    """Title and text of each name."""
    stages, width, hidden = size.glow
    count = sum(stages.blocks)
    flows = f"{count} steps in {len(stages.blocks)} stages, nets of {width} channels"
    styled = f"{count} residual blocks of {hidden} channels in the stages of Glow, c = 0.9"
    depth, bottlenecks, _ = size.resnet
    return {
        "resnet-164": (
            f"ResNet-{depth}",
            f"pre-activation bottlenecks, {bottlenecks} channels in the first",
        ),
        "vanilla": ("Vanilla", f"the twin of i-ResNet without a bound: {size.text}"),
        **{
            name: (
                f"i-ResNet, c = {c}",
                f"{size.text}, the product of a branch's norms at most {c}³",
            )
            for name, c in COEFFICIENTS.items()
        },
        "i-revnet": ("i-RevNet", "additive couplings of bottlenecks with batch norm"),
        "glow-affine": (
            "Glow, affine, 1x1",
            f"{flows}, affine couplings and learned 1x1 convolutions of normflows",
        ),
        "glow-additive": (
            "Glow, additive, reverse",
            f"{flows}, additive couplings and exchanged halves of normflows",
        ),
        "i-resnet-glow": ("i-ResNet, Glow-style", styled),
    }


def makers(size: Size) -> dict[str, Make]:
    """What makes the model of each name."""
    stages, width, hidden = size.glow

    def i_resnet(coefficient: float) -> Make:
        return lambda shape, classes: i_resnet_classifier(
            shape, classes, size.layout(shape), size.hidden_channels, coefficient
        )

    def vanilla(shape: Shape, classes: int) -> nn.Module:
        return vanilla_classifier(shape, classes, size.layout(shape), size.hidden_channels)

    def resnet(shape: Shape, classes: int) -> nn.Module:
        return PreActivationResNet(shape[0], classes, *size.resnet)

    def i_revnet(shape: Shape, classes: int) -> nn.Module:
        return i_revnet_classifier(shape, classes, *size.revnet)

    def glow(shape: Shape, classes: int, affine: bool) -> nn.Module:
        return glow_classifier(shape, classes, stages, width, affine)

    def glow_style(shape: Shape, classes: int) -> nn.Module:
        return i_resnet_classifier(shape, classes, stages, (hidden,) * len(stages.blocks))

    return {
        "resnet-164": resnet,
        "vanilla": vanilla,
        **{name: i_resnet(c) for name, c in COEFFICIENTS.items()},
        "i-revnet": i_revnet,
        "glow-affine": partial(glow, affine=True),
        "glow-additive": partial(glow, affine=False),
        "i-resnet-glow": glow_style,
    }


def steps(spent: float) -> float:
    """A fifth after 60, 120 and 160 of 200 epochs."""
    return 0.2 ** sum(spent >= end for end in (0.3, 0.6, 0.8))


RATES = {"glow-affine": 1e-2, "glow-additive": 1e-2, "resnet-164": 1e-2, "i-revnet": 1e-2}


def quick(name: str, title: str, text: str, make: Make) -> Recipe:
    # The bounds of the kernels cost the same for any batch.
    optimiser = partial(AdamW, lr=RATES.get(name, 4e-2), weight_decay=1e-2)
    return Recipe(name, title, text, make, optimiser, batch=256, shift=2)


def paper(name: str, title: str, text: str, make: Make) -> Recipe:
    # Glow does not train at the rate of the others. The warm-up is of ten epochs of CIFAR-10.
    recipe = partial(Recipe, name, title, text, make, schedule=steps, warmup=3900, shift=2)
    if name.startswith("glow"):
        return recipe(partial(Adamax, lr=1e-3))
    return recipe(partial(SGD, lr=0.1, momentum=0.9, weight_decay=5e-4))


def family(size: Size, recipe: Callable[[str, str, str, Make], Recipe]) -> dict[str, Recipe]:
    said = titles(size)
    return {name: recipe(name, *said[name], make) for name, make in makers(size).items()}


CLASSIFIERS = {"quick": family(QUICK, quick), "paper": family(PAPER, paper)}
"""By scale and name."""
