"""How long a training step takes, and the width at which it takes as long as another's."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from nflows.flows.base import Flow

from iresnet_flows.experiments.comparison.costs import ROWS, step_ms
from iresnet_flows.experiments.machines import on_threads
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.widths import nearest

__all__ = ["step_seconds", "width_in_time"]

WIDTHS = tuple(round(2 ** (power / 2)) for power in range(2, 21))  # 2, 3, 4, 6, ... 1024


def width_in_time(make: Callable[[int], Flow], features: int, target: float) -> tuple[int, float]:
    """The width on a grid of powers of the root of 2 whose step takes nearest to so long.

    Arguments:
        make: Gives the flow of a width; the wider, the slower.
        features: The dimension d.
        target: The seconds of a step.

    Returns:
        The width, and the seconds of its step.
    """

    @cache
    def seconds(index: int) -> float:
        with seeded():
            return step_seconds(make(WIDTHS[index]), features)

    best = nearest(seconds, target, 0, len(WIDTHS) - 1)
    return WIDTHS[best], seconds(best)


def step_seconds(flow: Flow, features: int) -> float:
    """The time of the loss of 256 rows and its gradient, in train mode, on one thread.

    It is the median of a few, in the time of the process, in which others do not count.

    Arguments:
        flow: The flow; it has seen a batch of noise thereafter.
        features: The dimension d.
    """
    rows = torch.randn(ROWS, features, generator=torch.Generator().manual_seed(0))
    with quiet(), on_threads(1), seeded():
        return step_ms(flow, rows) / 1e3
