"""The lines that figures draw of results, thinned to what an eye can tell apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from iresnet_flows.experiments.comparison.results import Result
from iresnet_flows.experiments.comparison.rows import good
from iresnet_flows.experiments.data.tables import Array

__all__ = ["ceiling", "curve", "error_shares"]

POINTS = 200
FLOOR = 1e-9
SETTLED = 1 / 8


def curve(run: Result) -> tuple[Array, Array] | None:
    """The seconds of training and the validation nats of a run, or None without a density."""
    if not run.curve or (run.nats is None and run.error is None):
        return None
    _, seconds, nats = np.array(run.curve, dtype=float).T
    kept = thinned(len(nats))
    return seconds[kept], nats[kept]


def ceiling(runs: Iterable[Result]) -> float | None:
    """Up to where validation is worth showing, for the first steps are far above the rest."""
    lines = [line[1] for run in runs if (line := curve(run))]
    tops = [line[int(len(line) * SETTLED)] for line in lines]
    finite = [top for top in tops if np.isfinite(top)]
    if not finite:
        return None
    low = min(np.nanmin(line) for line in lines)
    return float(max(finite) + 0.05 * (max(finite) - low))


def error_shares(runs: Sequence[Result]) -> tuple[Array, Array] | None:
    """Errors of the inverse over rows and seeds, and the share of rows at most there."""
    found = [run.arrays["errors"] for run in good(runs) if "errors" in run.arrays]
    errors = np.sort(np.concatenate(found)) if found else np.empty(0)
    count = len(errors)
    errors = errors[np.isfinite(errors)]
    if not len(errors):
        return None
    kept = thinned(len(errors))
    return np.maximum(errors[kept], FLOOR), (kept + 1) / count


def thinned(count: int) -> Array:
    return np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(int))
