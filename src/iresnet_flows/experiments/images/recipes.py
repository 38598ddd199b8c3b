"""What is trained on images, and how: one object a contender."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from torch import Generator, Tensor, nn
from torch.optim import Optimizer

__all__ = ["Density", "Recipe", "Shape", "cosine", "halvings", "quick_recipe", "suited"]

Shape = tuple[int, int, int]
"""Channels, height and width."""


class Density(Protocol):
    """A density on images x, (B, C, H, W) with entries in [0, 1]."""

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """log p(x), or log p(x | label), with shape (B,), in nats."""

    def sample(
        self,
        count: int,
        temperature: float = 1.0,
        labels: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Images, (count, C, H, W) in [0, 1]; the latents' deviation is times the temperature."""


def cosine(spent: float) -> float:
    """The factor of the learning rate after that share of the budget."""
    return (1 + math.cos(math.pi * spent)) / 2


def halvings(shape: Shape, most: int) -> int:
    """How many times height and width can both be halved, up to the most."""
    both = math.gcd(*shape[1:])
    return max(times for times in range(most + 1) if both % 2**times == 0)


@dataclass(frozen=True)
class Recipe:
    """A model of images and its training.

    Arguments:
        name: What `--model` calls it.
        title: What tables call it.
        text: The architecture in a sentence.
        make: Gives the model from the shape of an image and the number of classes: a `Density`, or
            a module from images in [0, 1] to logits (B, classes).
        optimiser: Gives the optimiser, with its learning rate, from the parameters.
        batch: The images of a step, over all devices.
        schedule: The factor of the learning rate after a share of the budget.
        warmup: The steps in which it rises from zero; it never exceeds one.
        clip: The largest norm of a gradient, or None.
        average: The decay of the moving average of the weights, which are what is measured, or
            None.
        shift: The most pixels that a training image is moved by in each direction.
        flip: Whether half of the training images are mirrored.
        after_step: What its library asks for after each step of the optimiser, or None.
    """

    name: str
    title: str
    text: str
    make: Callable[[Shape, int], nn.Module]
    optimiser: Callable[[Iterable[nn.Parameter]], Optimizer]
    batch: int = 128
    schedule: Callable[[float], float] = cosine
    warmup: int = 100
    clip: float | None = None
    average: float | None = None
    shift: int = 0
    flip: bool = False
    after_step: Callable[[nn.Module], None] | None = None


quick_recipe = partial(Recipe, warmup=50, clip=20.0, average=0.998)
"""What all small densities have in common."""


def suited(recipe: Recipe, shape: Shape) -> Recipe:
    """The recipe with the augmentation of colour photographs, where the images are such."""
    return replace(recipe, shift=4, flip=True) if shape[0] == 3 else recipe
