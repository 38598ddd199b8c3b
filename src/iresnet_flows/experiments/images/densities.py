"""The i-ResNet among the densities of images, small and in the papers' shapes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch.optim import Adam, Adamax, AdamW

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.images.recipes import Recipe, Shape, quick_recipe
from iresnet_flows.layers import Logit
from iresnet_flows.models import HybridFlow, ImageBlocks, MultiScaleFlow, i_resnet_flow

__all__ = ["DENSITIES"]


def start(shape: Shape) -> Logit:
    """The logit as Residual Flows take it: grey digits are black nearly everywhere."""
    return Logit(1e-6 if shape[0] == 1 else 0.05)


def quick(shape: Shape, _classes: int) -> MultiScaleFlow:
    return small("i-resnet", shape)


def classes_apart(shape: Shape, classes: int) -> MultiScaleFlow:
    return small("i-resnet-classes", shape, classes)


def hybrid(shape: Shape, classes: int) -> HybridFlow:
    return HybridFlow(small("i-resnet-hybrid", shape, classes), classes)


def small(name: str, shape: Shape, classes: int | None = None) -> MultiScaleFlow:
    require_halves(name, shape, 2)
    blocks = ImageBlocks(hidden_channels=(32, 32), lipschitz=0.97)
    return i_resnet_flow(shape, (8, 8), blocks, start=start(shape), classes=classes)


def paper(shape: Shape, _classes: int) -> MultiScaleFlow:
    require_halves("i-resnet", shape, 2)
    deep = all(size % 8 == 0 for size in shape[1:])
    width = 32 if shape[0] == 1 else 512
    blocks = ImageBlocks((width, width), lipschitz=0.9**3, activation="elu", memory="low")
    return i_resnet_flow(shape, (32, 32, 32) if deep else (48, 48), blocks, start=start(shape))


def residual_flow(shape: Shape, _classes: int) -> MultiScaleFlow:
    require_halves("residual-flow", shape, 2)
    blocks = ImageBlocks((512, 512), lipschitz=0.98**3, activation="lipswish", memory="low")
    return i_resnet_flow(
        shape,
        (16, 16, 16),
        blocks,
        start=start(shape),
        squeeze_first=False,
        factor_out=False,
        connected=(128,) * 4,
    )


def require_halves(name: str, shape: Shape, times: int) -> None:
    """Refuse images that the squeezes of a model cannot halve.

    Raises:
        UsageError: The height or the width is no multiple.
    """
    multiple = 2**times
    _, height, width = shape
    if not height or not width or height % multiple or width % multiple:
        raise UsageError(
            f"{name} halves images {times} times, so that their height and width must be "
            f"multiples of {multiple}, got {height} x {width}: crop or pad them."
        )


def constant(_spent: float) -> float:
    return 1.0


SMALL = quick_recipe(
    "i-resnet",
    "i-ResNet",
    "squeeze, then 2 scales of 8 residual blocks, half of the channels let go of after the first, "
    "3x3-1x1-3x3 of 32 channels, (sin, cos) activation, Lipschitz bound 0.97 a block, ActNorm "
    "before each block",
    quick,
    partial(Adam, lr=3e-3),
    batch=32,
)
QUICK = (
    SMALL,
    replace(
        SMALL,
        name="i-resnet-classes",
        title="i-ResNet of classes",
        text=f"{SMALL.text}; the last latents are normal given the label",
        make=classes_apart,
    ),
    replace(
        SMALL,
        name="i-resnet-hybrid",
        title="i-ResNet hybrid",
        text=f"{SMALL.text}; the last latents are normal given the label, and a perceptron of one "
        "hidden layer classifies all latents",
        make=hybrid,
    ),
)
PAPER = (
    Recipe(
        "i-resnet",
        "i-ResNet",
        "squeeze, then 3 scales of 32 residual blocks (2 of 48 where the sides are no multiples "
        "of 8), half of the channels let go of after each, 3x3-1x1-3x3 of 512 channels (32 for "
        "grey images), ELU, Lipschitz bound 0.9 a convolution, ActNorm before each block, "
        "log-dets without bias where the paper cuts the series",
        paper,
        partial(Adamax, lr=3e-3),
        batch=128,
        schedule=constant,
        warmup=400,
    ),
    Recipe(
        "residual-flow",
        "Residual Flow",
        "3 scales of 16 residual blocks with squeezes between, 3x3-1x1-3x3 of 512 channels, "
        "LipSwish, Lipschitz bound 0.98 a convolution, then 4 fully connected blocks of width "
        "128, ActNorm before each block",
        residual_flow,
        partial(AdamW, lr=1e-3, betas=(0.9, 0.99), weight_decay=5e-4),
        batch=64,
        schedule=constant,
        warmup=1000,
        clip=1.0,
        average=0.999,
    ),
)
DENSITIES: dict[str, dict[str, Recipe]] = {
    scale: {recipe.name: recipe for recipe in recipes}
    for scale, recipes in (("quick", QUICK), ("paper", PAPER))
}
"""By scale and name."""
