"""Models of equal size: the one free width of each, found by search."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from iresnet_flows.experiments.seeds import seeded

__all__ = ["fitting_width", "parameters"]

MOST = 4096


def fitting_width(make: Callable[[int], nn.Module], target: int) -> int:
    """The width whose model has the number of parameters that is nearest to the target.

    It is 4096 at most.

    Arguments:
        make: Gives the model of a width; the wider, the more parameters.
        target: The number of trainable parameters.
    """
    low, high = 1, 2
    while parameters(make, high) < target and high < MOST:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if parameters(make, middle) < target:
            low = middle
        else:
            high = middle
    return min(low, high, key=lambda width: abs(parameters(make, width) - target))


def parameters(make: Callable[[int], nn.Module], width: int) -> int:
    """The trainable parameters at that width; draws nothing from the caller's generator."""
    with seeded():
        model = make(width)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
