"""The i-ResNet among the densities of images, small and in the papers' shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch.optim import Adam, Adamax, AdamW

from iresnet_flows.experiments.images.recipes import Recipe, Shape, halvings, quick_recipe
from iresnet_flows.layers import Logit
from iresnet_flows.models import HybridFlow, ImageBlocks, MultiScaleFlow, i_resnet_flow

__all__ = ["DENSITIES"]


def start(shape: Shape) -> Logit:
    """The logit as Residual Flows take it: grey digits are black nearly everywhere."""
    return Logit(1e-6 if shape[0] == 1 else 0.05)


def small(shape: Shape, classes: int | None = None) -> MultiScaleFlow:
    blocks = ImageBlocks(hidden_channels=(32, 32), lipschitz=0.97)
    return flow(shape, 16, 2, blocks, classes)


def large(shape: Shape, classes: int | None = None) -> MultiScaleFlow:
    width = 32 if shape[0] == 1 else 512
    blocks = ImageBlocks((width, width), lipschitz=0.9**3, activation="elu", memory="low")
    return flow(shape, 96, 3, blocks, classes)


def flow(
    shape: Shape, count: int, most: int, blocks: ImageBlocks, classes: int | None
) -> MultiScaleFlow:
    """So many blocks in equal scales, each after a squeeze: as many as the sides allow."""
    squeezes = halvings(shape, most)
    scales = max(1, squeezes)
    return i_resnet_flow(
        shape,
        (count // scales,) * scales,
        blocks,
        start=start(shape),
        squeeze_first=squeezes > 0,
        classes=classes,
    )


def residual_flow(shape: Shape, _classes: int) -> MultiScaleFlow:
    blocks = ImageBlocks((512, 512), lipschitz=0.98**3, activation="lipswish", memory="low")
    scales = 1 + halvings(shape, 2)
    return i_resnet_flow(
        shape,
        (48 // scales,) * scales,
        blocks,
        start=start(shape),
        squeeze_first=False,
        factor_out=False,
        connected=(128,) * 4,
    )


def family(recipe: Recipe, make: Callable[..., MultiScaleFlow]) -> tuple[Recipe, ...]:
    """The recipe, and those of the densities that know classes."""

    def hybrid(shape: Shape, classes: int) -> HybridFlow:
        return HybridFlow(make(shape, classes), classes)

    return (
        recipe,
        replace(
            recipe,
            name=f"{recipe.name}-classes",
            title=f"{recipe.title} of classes",
            text=f"{recipe.text}; the last latents are normal given the label",
            make=make,
        ),
        replace(
            recipe,
            name=f"{recipe.name}-hybrid",
            title=f"{recipe.title} hybrid",
            text=f"{recipe.text}; the last latents are normal given the label, and a perceptron "
            "of one hidden layer classifies all latents",
            make=hybrid,
        ),
    )


def constant(_spent: float) -> float:
    return 1.0


FEWER = "the same in fewer scales where the sides cannot be halved so often"
QUICK = family(
    quick_recipe(
        "i-resnet",
        "i-ResNet",
        f"2 scales of 8 residual blocks ({FEWER}), a squeeze before each and half of the channels "
        "let go of after the first, 3x3-1x1-3x3 of 32 channels, (sin, cos) activation, Lipschitz "
        "bound 0.97 a block, ActNorm before each block",
        lambda shape, _classes: small(shape),
        partial(Adam, lr=3e-3),
        batch=32,
    ),
    small,
)
PAPER = (
    *family(
        Recipe(
            "i-resnet",
            "i-ResNet",
            f"3 scales of 32 residual blocks ({FEWER}), a squeeze before each and half of the "
            "channels let go of after each but the last, 3x3-1x1-3x3 of 512 channels (32 for grey "
            "images), ELU, Lipschitz bound 0.9 a convolution, ActNorm before each block, log-dets "
            "without bias where the paper cuts the series",
            lambda shape, _classes: large(shape),
            partial(Adamax, lr=3e-3),
            batch=128,
            schedule=constant,
            warmup=400,
            average=0.999,
        ),
        large,
    ),
    Recipe(
        "residual-flow",
        "Residual Flow",
        f"3 scales of 16 residual blocks ({FEWER}), with squeezes between, 3x3-1x1-3x3 of 512 "
        "channels, LipSwish, Lipschitz bound 0.98 a convolution, then 4 fully connected blocks of "
        "width 128, ActNorm before each block",
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
