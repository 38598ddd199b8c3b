"""How long a training lasts, and how it may end before."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from iresnet_flows.checks import check_count

__all__ = ["Budget", "Diverged"]


class Diverged(RuntimeError):
    """A training that came to no finite result; the message says how."""


@dataclass(frozen=True)
class Budget:
    """The end of a training: a number of steps, or of minutes.

    Arguments:
        steps: The number of optimiser steps, or None.
        minutes: The time of training in minutes, or None.

    Raises:
        ValueError: Neither or both are given, or one is not positive.
    """

    steps: int | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(
                "a budget is a number of steps or of minutes, and one of them must be given, "
                f"got steps {self.steps!r} and minutes {self.minutes!r}."
            )
        if self.steps is not None:
            check_count("steps", self.steps)
        elif not 0 < (self.minutes or 0) < inf:
            raise ValueError(f"minutes must be a positive number, got {self.minutes!r}.")

    def spent(self, steps: int, seconds: float) -> float:
        """The share of the budget that is used up, from 0 to 1."""
        return min(1.0, steps / (self.steps or inf) + seconds / (60 * (self.minutes or inf)))
