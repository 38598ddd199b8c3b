"""Times of several contestants, alternated so that a busy machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Clock", "Times"]

FEWEST = 3


@dataclass(frozen=True)
class Times:
    """What a clock has seen.

    Arguments:
        rounds: The milliseconds of each contestant, round by round.
        failed: Why a contestant has none.
    """

    rounds: dict[str, list[float]]
    failed: dict[str, str]

    def spread(self, theirs: str, ours: str) -> tuple[float, float] | None:
        """The quartiles of the ratio of two contestants, round by round."""
        pairs = zip(self.rounds.get(theirs, ()), self.rounds.get(ours, ()), strict=False)
        ratios = [a / b for a, b in pairs]
        if len(ratios) < 2:
            return None
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return low, high

    def median(self, name: str) -> float | None:
        return statistics.median(self.rounds[name]) if self.rounds.get(name) else None


@dataclass(frozen=True)
class Clock:
    """Runs each contestant once a round, forwards and backwards in turn, after a warm-up.

    Arguments:
        rounds: The most rounds that are counted.
        seconds: No round begins later than this, once there are three.
        patience: A contestant whose warm-up takes more seconds than this is left out.
    """

    rounds: int
    seconds: float
    patience: float = float("inf")

    def alternate(self, runs: Mapping[str, Callable[[], object]]) -> Times:
        times = Times({}, {})
        for name, run in runs.items():
            try:
                took = milliseconds(run)
            except (RuntimeError, ValueError) as error:
                times.failed[name] = " ".join(str(error).split())
                continue
            if took > 1e3 * self.patience:
                times.failed[name] = f"left out: one run took {took / 1e3:.1f} s"
            else:
                times.rounds[name] = []

        order = list(times.rounds)
        start = time.perf_counter()
        for count in range(self.rounds if order else 0):
            if count >= FEWEST and time.perf_counter() - start > self.seconds:
                break
            for name in order:
                times.rounds[name].append(milliseconds(runs[name]))
            order.reverse()
        return times


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)
