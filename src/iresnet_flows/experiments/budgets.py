"""How long a training lasts, and how it may end before."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Budget", "Diverged"]


class Diverged(RuntimeError):
    """A training that came to no finite result; the message says how."""


@dataclass(frozen=True)
class Budget:
    """The end of a training: a number of steps, or of minutes.

    Arguments:
        steps: The number of optimiser steps, or None.
        minutes: The time of training in minutes, or None.
    """

    steps: int | None = None
    minutes: float | None = None

    def spent(self, steps: int, seconds: float) -> float:
        """The share of the budget that is used up, from 0 to 1."""
        if self.steps is not None:
            return min(1.0, steps / self.steps)
        return min(1.0, seconds / (60 * (self.minutes or 1.0)))
