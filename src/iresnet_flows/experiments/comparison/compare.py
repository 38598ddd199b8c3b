"""The head-to-head: contenders trained alike, measured, and reported."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from iresnet_flows.errors import UnmatchedContender, UsageError
from iresnet_flows.experiments.comparison.contenders import (
    CONTENDERS,
    YARDSTICK,
    Contender,
    width_of,
)
from iresnet_flows.experiments.comparison.report import write_reports
from iresnet_flows.experiments.comparison.results import Match, Plan, Result
from iresnet_flows.experiments.comparison.runs import Task
from iresnet_flows.experiments.comparison.schedule import carry_out
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.storage import read_json, write_json

__all__ = ["Settings", "compare"]

RUNS = "runs"
WIDTHS = "widths.json"


@dataclass(frozen=True)
class Settings:
    """What is compared.

    Arguments:
        seeds: The seeds of each contender on each data set.
        steps: The budget of each training in optimiser steps, or None.
        minutes: The budget in minutes, or None.
        rows: The number of training rows, or None for all.
        match: What is made equal between contenders: ``parameters``, ``time`` or ``none``.
        device: Lightning's accelerator.
        data_dir: Where data sets of files are.
        jobs: Runs at a time.
        command: The command line, for the record.
    """

    seeds: tuple[int, ...]
    steps: int | None
    minutes: float | None
    rows: int | None
    match: Match
    device: str
    data_dir: Path | None
    jobs: int
    command: str


def compare(
    settings: Settings,
    datasets: dict[str, Dataset],
    contenders: Sequence[Contender],
    folder: Path,
    fresh: bool,
    console: Console,
) -> list[Result]:
    """Train and measure every contender on every data set, and write the report of all.

    Each run has a folder of its own beneath ``runs/``, named by what it is made of, so that the
    same command goes on where it was cut off, and a run that is done is never done again.

    Arguments:
        settings: What is compared.
        datasets: The data sets by the names that the user gave them.
        contenders: The contenders.
        folder: Of the report and the runs.
        fresh: Forget these runs, if they are in it, though not the widths that were timed.
        console: Shows the progress.

    Raises:
        UsageError: A contender does not exist for some data.
        KeyboardInterrupt: As given; what is done stays.
    """
    tasks = [
        task
        for name, dataset in datasets.items()
        for task in planned(settings, name, dataset, contenders, folder / RUNS)
    ]
    for task in tasks:
        if fresh and task.folder.exists():
            shutil.rmtree(task.folder)
    results = carry_out(tasks, settings.jobs, console)
    with console.status("writing the report"):
        write_reports(results, folder, settings.command)
    return results


def planned(
    settings: Settings, name: str, dataset: Dataset, contenders: Sequence[Contender], folder: Path
) -> Iterator[Task]:
    """The runs on one data set, seed by seed, so that an early end leaves whole comparisons."""
    require_columns(dataset.features, contenders)
    sizes = widths(settings.match, dataset.features, contenders, folder)
    print_of_rows = fingerprint(dataset)
    for seed in settings.seeds:
        for who in contenders:
            width, remark = sizes[who.name]
            plan = Plan(
                *(name, print_of_rows, who.name, seed, settings.steps, settings.minutes),
                *(settings.rows, settings.match, settings.device, who.digest(width)),
            )
            at = folder / plan.slug
            yield Task(plan, width, remark, settings.data_dir, at, settings.command)


def require_columns(features: int, contenders: Sequence[Contender]) -> None:
    """Refuse data that are too narrow for some, and name the others.

    Raises:
        UsageError: Some need more columns.
    """
    out = [who.title for who in contenders if who.least_features > features]
    if out:
        left = [who.name for who in contenders if who.least_features <= features]
        raise UsageError(
            f"the data have too few columns, {features}, for {', '.join(out)}: name others by "
            f"--models{', as ' * bool(left)}{','.join(left)}."
        )


def widths(
    match: Match, features: int, contenders: Sequence[Contender], folder: Path
) -> dict[str, tuple[int | None, str | None]]:
    """What `sized` says of each.

    Those that were found by time are kept in the folder, for another time would be another width.
    """
    if match != "time":
        return {who.name: sized(who, features, match) for who in contenders}
    path = folder / WIDTHS
    kept = read_json(path) if path.is_file() else {}
    yardstick = CONTENDERS[YARDSTICK].digest(None)
    keys = {
        who.name: f"{who.name} {who.digest(None)} to {yardstick}, {features} columns"
        for who in contenders
    }
    for who in contenders:
        if keys[who.name] not in kept:
            kept[keys[who.name]] = sized(who, features, match)
            write_json(path, kept)
    return {name: tuple(kept[key]) for name, key in keys.items()}


def sized(who: Contender, features: int, match: Match) -> tuple[int | None, str | None]:
    """The width at which it is compared, the same in all its runs, and what to know of it."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UnmatchedContender)
        width = width_of(who, features, match)
    if who.origin == "yours":
        with seeded():
            who.make(features, width or 0)  # so that a fault is met before the others are trained
    unmatched = [str(w.message) for w in said if issubclass(w.category, UnmatchedContender)]
    return width, " ".join(filter(None, [who.remark, *unmatched])) or None


def fingerprint(dataset: Dataset) -> str:
    """A few letters that change with the rows."""
    digest = hashlib.sha256()
    for part in (dataset.train, dataset.validation, dataset.test):
        digest.update(part.numpy().tobytes())
    return digest.hexdigest()[:12]
