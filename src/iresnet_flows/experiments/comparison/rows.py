"""A row of the table for each contender: what its runs over the seeds come to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from iresnet_flows.experiments.averages import mean, median, standard_error, worst
from iresnet_flows.experiments.comparison.results import PROBES, PROPERTIES, Result
from iresnet_flows.experiments.comparison.statistics import uncertainty

__all__ = ["COSTS", "by_model", "failure", "good", "rows"]

COSTS = ("step_ms", "log_prob_ms", "sample_ms", "peak_mb")
COUNTS = ("log_prob_evaluations", "sample_evaluations")


def rows(results: Sequence[Result]) -> list[dict[str, Any]]:
    """A row for each contender on one data set with one budget, as each first appears.

    Nats are means over the seeds that have a result, with a standard error over them and over the
    test rows; costs and evaluations are medians, other probes the largest, and
    None where one of the runs has none. Properties and their evidence are those of the first run
    that has a result.
    """
    return [row(runs) for runs in by_model(results).values()]


def by_model(results: Iterable[Result]) -> dict[str, list[Result]]:
    """The runs of each contender, one a seed: of several the first."""
    groups: dict[str, dict[int, Result]] = {}
    for result in results:
        groups.setdefault(result.plan.model, {}).setdefault(result.plan.seed, result)
    return {model: [runs[seed] for seed in sorted(runs)] for model, runs in groups.items()}


def failure(result: Result) -> str | None:
    """Why a run counts for nothing, or None; to have no density is no failure."""
    if result.error is None and result.nats is not None and not math.isfinite(result.nats):
        return f"the test loss is {result.nats}"
    return result.error


def good(runs: Iterable[Result]) -> list[Result]:
    """Those that have not failed."""
    return [run for run in runs if failure(run) is None]


def row(runs: Sequence[Result]) -> dict[str, Any]:
    whole = good(runs)
    counted = whole or runs
    first = counted[0]
    scored = [run for run in whole if run.nats is not None]
    return {
        "model": first.plan.model,
        **{name: first.properties.get(name) for name in PROPERTIES},
        "evidence": dict(first.evidence),
        "nats": mean(run.nats for run in scored),
        "nats_standard_error": spread(scored),
        "bits_per_dim": mean(run.bits_per_dim for run in scored),
        "parameters": first.parameters,
        "train_seconds": mean(run.train_seconds for run in counted),
        "steps": round(statistics.fmean(run.steps for run in counted)),
        **{name: median(run.costs.get(name) for run in whole) for name in COSTS},
        **{name: probe(whole, name) for name in PROBES},
        "nats_by_seed": {str(run.plan.seed): run.nats for run in scored},
        "failed": [f"seed {run.plan.seed}: {why}" for run in runs if (why := failure(run))],
        "nan_runs": len(runs) - len(whole),
        "runs": len(runs),
        "remark": "; ".join(dict.fromkeys(run.remark for run in counted if run.remark)) or None,
        "title": first.title,
        "recipe": first.recipe,
        "origin": first.origin,
    }


def spread(scored: Sequence[Result]) -> float | None:
    """The error over seeds and test rows, or over seeds alone where their rows are not at hand."""
    if len(scored) == 1:
        return scored[0].row_standard_error
    tables = [run.arrays["rows"] for run in scored if "rows" in run.arrays]
    if tables and len(tables) == len(scored) and len({len(table) for table in tables}) == 1:
        return uncertainty(np.stack(tables))[0]
    return standard_error(run.nats for run in scored)


def probe(runs: Sequence[Result], name: str) -> Any:
    if name in COUNTS:
        return median(run.probes.get(name) for run in runs)
    return worst([run.probes.get(name) for run in runs])
