"""Models of equal size or time: the one free width of each, found by search."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import partial

from torch import nn

from iresnet_flows.experiments.seeds import seeded

__all__ = ["fitting_width", "nearest", "parameters", "trainable"]

MOST = 4096


def fitting_width(make: Callable[[int], nn.Module], target: int) -> int:
    """The width whose model has the number of parameters that is nearest to the target.

    It is 4096 at most.

    Arguments:
        make: Gives the model of a width; the wider, the more parameters.
        target: The number of trainable parameters.
    """
    return nearest(partial(parameters, make), target, 1, MOST)


def nearest(measure: Callable[[int], float], target: float, least: int, most: int) -> int:
    """The number from the least to the most whose measure, which grows, is nearest to the target.

    It begins with small ones, for large ones take long to measure.
    """
    low, high = least, 2
    while high < most and measure(high) < target:
        low, high = high, min(2 * high, most)
    high = bisect_left(range(high), target, low + 1, key=measure)
    return min(high - 1, high, key=lambda number: abs(measure(number) - target))


def parameters(make: Callable[[int], nn.Module], width: int) -> int:
    """The trainable parameters at that width; draws nothing from the caller's generator."""
    with seeded():
        return trainable(make(width))


def trainable(module: nn.Module) -> int:
    """How many numbers of a module are trained."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
