"""The head-to-head: contenders trained alike, measured, and reported."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.comparison import costs, figures
from iresnet_flows.experiments.comparison.contenders import Contender, build
from iresnet_flows.experiments.comparison.properties import Properties, measure
from iresnet_flows.experiments.comparison.report import write_page, write_table
from iresnet_flows.experiments.comparison.runs import Run, standard_error, train
from iresnet_flows.experiments.comparison.training import prepared
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.experiments.storage import claim_folder, write_json
from iresnet_flows.experiments.versions import versions

__all__ = ["Settings", "compare"]

PROBED_ROWS = 64
PACKAGES = ("nflows", "torchdiffeq", "lightning", "numpy")


@dataclass(frozen=True)
class Settings:
    """What a comparison is, so that one that was cut off can go on.

    Arguments:
        data: The data set's name or path.
        models: The names of the contenders.
        seeds: The seeds of each contender.
        steps: The budget of each training in optimiser steps, or None.
        minutes: The budget in minutes, or None.
        device: Lightning's accelerator.
    """

    data: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int | None
    minutes: float | None
    device: str

    @property
    def budget(self) -> Budget:
        return Budget(self.steps, self.minutes)


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks of this size run faster on one thread, and their times are steadier."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
def compare(
    settings: Settings,
    dataset: Dataset,
    contenders: Sequence[Contender],
    folder: Path,
    resume: bool,
    command: str,
    console: Console,
) -> list[dict[str, Any]]:
    """Train and measure every contender; write the table, the page and the figures.

    Returns:
        The rows of ``table1.json``.

    Raises:
        UsageError: A contender does not exist for these data, or `resume` was asked for with
            other settings.
        KeyboardInterrupt: As given; what is done stays for `resume`.
    """
    for contender in contenders:
        build(contender, dataset.features)
    claim_folder(folder, asdict(settings), resume, ["runs"])

    runs: dict[str, list[Run]] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for contender in contenders:
            for seed in settings.seeds:
                name = f"{contender.title}, seed {seed}"
                task = progress.add_task(name, total=1.0, loss="...")
                at = folder / "runs" / f"{contender.name}-seed{seed}"
                run = train(
                    contender, dataset, seed, settings.budget, at, settings.device, progress, task
                )
                runs.setdefault(contender.name, []).append(run)
                progress.update(task, completed=1.0, loss=run.error or f"{run.nats:.3f} (test)")

    with console.status("measuring the properties and the costs"), quiet():
        rows = [row(c, runs[c.name], dataset) for c in contenders]
    with console.status("drawing"), quiet():
        figures.draw(folder / "figures", dataset, contenders, runs, rows)

    record = {
        "data": settings.data,
        "seeds": list(settings.seeds),
        "command": command,
        "settings": asdict(settings),
        "versions": versions(PACKAGES),
        "rows": rows,
        "lead": lead(runs),
    }
    write_json(folder / "table1.json", record)
    write_table(folder / "table1.md", record)
    write_page(folder / "report.html", record, dataset, contenders, folder / "figures")
    return rows


def row(contender: Contender, runs: list[Run], dataset: Dataset) -> dict[str, Any]:
    """A row of the table; properties and costs are those of the first run that has a result."""
    good = [run for run in runs if run.error is None]
    failed = [f"seed {run.seed}: {run.error}" for run in runs if run.error is not None]
    found, cost = Properties(), dict.fromkeys(("step_ms", "log_prob_ms", "sample_ms", "peak_mb"))
    if good:
        z = prepared(dataset, dataset.test)
        flow = good[0].flow
        cost = {
            "step_ms": costs.step_ms(flow, z),
            "log_prob_ms": costs.log_prob_ms(flow, z),
            "sample_ms": costs.sample_ms(flow),
            "peak_mb": costs.peak_mb(flow, z),
        }
        found = measure(flow, z[:PROBED_ROWS])

    nats = statistics.fmean(run.nats for run in good) if good else math.nan
    error = statistics.fmean(run.row_standard_error for run in good) if good else math.nan
    if len(good) > 1:
        error = standard_error([run.nats for run in good])
    inverse_errors = [run.inverse_error for run in good if run.inverse_error is not None]

    return {
        "model": contender.name,
        **asdict(found),
        "nats": nats,
        "nats_standard_error": error,
        "bits_per_dim": dataset.bits_per_dim(nats),
        "inverse_error": max(inverse_errors)
        if good and len(inverse_errors) == len(good)
        else None,
        "parameters": runs[0].parameters,
        "train_seconds": statistics.fmean(run.train_seconds for run in runs),
        "steps": round(statistics.fmean(run.steps for run in runs)),
        **cost,
        "nats_by_seed": {str(run.seed): run.nats for run in good},
        "failed": failed,
    }


def lead(runs: dict[str, list[Run]]) -> dict[str, Any] | None:
    """How far the best model is ahead of the next, in nats, paired by test row.

    The rows are the same for all models, so that what makes a row hard for everyone cancels.
    """
    by_row = {
        name: [statistics.fmean(row) for row in zip(*rows, strict=True)]
        for name, group in runs.items()
        if (rows := [run.row_nats for run in group if run.error is None])
    }
    if len(by_row) < 2:
        return None
    best, second = sorted(by_row, key=lambda name: statistics.fmean(by_row[name]))[:2]
    gaps = [b - a for a, b in zip(by_row[best], by_row[second], strict=True)]
    return {
        "model": best,
        "over": second,
        "nats": statistics.fmean(gaps),
        "standard_error": standard_error(gaps),
    }
