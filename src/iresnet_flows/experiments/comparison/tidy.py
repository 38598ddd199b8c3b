"""All runs as one table, a line a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame

from iresnet_flows.experiments.comparison.results import PROBES, PROPERTIES, Result
from iresnet_flows.experiments.comparison.rows import COSTS
from iresnet_flows.experiments.storage import write

__all__ = ["table", "write_tables"]

OWN = (
    *("title", "origin", "error", "remark", "width", "parameters", "steps", "train_seconds"),
    *("nats", "row_standard_error", "bits_per_dim", "command"),
)


def table(results: Sequence[Result]) -> DataFrame:
    """A line for each run: its plan, its data and every number of it."""
    frame = DataFrame([line(result) for result in results])
    flags = [*PROPERTIES, "takes_context", "discrete"]
    counts = ["width", "budget_steps", "log_prob_evaluations", "sample_evaluations"]
    kinds = dict.fromkeys(flags, "boolean") | dict.fromkeys(counts, "Float64")
    floats = (
        *COSTS,
        *(name for name in PROBES if name not in kinds),
        "nats",
        "bits_per_dim",
        "row_standard_error",
        "budget_minutes",
    )
    texts = dict.fromkeys(("error", "remark"), "string")
    return frame.astype(kinds | dict.fromkeys(floats, "Float64") | texts)


def write_tables(folder: Path, results: Sequence[Result]) -> None:
    """``results.csv`` and ``results.parquet``."""
    frame = table(results)
    write(folder / "results.csv", lambda part: frame.to_csv(part, index=False))
    write(folder / "results.parquet", lambda part: frame.to_parquet(part, index=False))


def line(result: Result) -> dict[str, Any]:
    plan, data = result.plan, result.data
    return {
        "data": data.name,
        "model": plan.model,
        "seed": plan.seed,
        "budget": plan.budget,
        "match": plan.match,
        "device": plan.device,
        "budget_steps": plan.steps,
        "budget_minutes": plan.minutes,
        "fingerprint": plan.fingerprint,
        "features": data.features,
        "train_rows": data.train,
        "validation_rows": data.validation,
        "test_rows": data.test,
        "discrete": data.discrete,
        **{name: getattr(result, name) for name in OWN},
        **{name: result.properties.get(name) for name in PROPERTIES},
        **{name: result.costs.get(name) for name in COSTS},
        **{name: result.probes.get(name) for name in PROBES},
        **{f"version_{name}": value for name, value in sorted(result.versions.items())},
    }
