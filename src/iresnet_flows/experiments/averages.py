"""What several values come to, of which some may be missing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

__all__ = ["mean", "median", "standard_error", "worst"]


def present(values: Iterable[float | None]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if value is not None and not math.isnan(value)]


def mean(values: Iterable[float | None]) -> float | None:
    """That of the present ones, or None without any."""
    known = present(values)
    return statistics.fmean(known) if known else None


def standard_error(values: Iterable[float | None]) -> float | None:
    """That of the mean of independent values, or None of fewer than two.

    >>> standard_error([1.0, 2.0, None, 3.0])
    0.577...
    """
    known = present(values)
    return statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None


def median(values: Iterable[float | None]) -> float | None:
    """That of the present ones, or None without any."""
    known = present(values)
    return statistics.median(known) if known else None


def worst(values: Sequence[float | None]) -> float | None:
    """The largest, or None where one is missing or no number."""
    known = present(values)
    return max(known) if known and len(known) == len(values) else None
