"""The comparisons that tables and figures of the paper are made of."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from iresnet_flows.experiments.comparison import compare
from iresnet_flows.experiments.comparison.contenders import Contender
from iresnet_flows.experiments.comparison.results import Match, Result
from iresnet_flows.experiments.data import load
from iresnet_flows.experiments.studies import Settings

__all__ = ["compared"]


def compared(
    settings: Settings,
    names: Sequence[str],
    contenders: Sequence[Contender],
    minutes: float,
    seeds: tuple[int, ...],
    console: Console,
    match: Match = "parameters",
) -> list[Result]:
    """Train and measure the contenders on the data sets, and write the report of `compare`.

    Arguments:
        settings: Those of the study.
        names: The data sets.
        contenders: The contenders.
        minutes: The time of each training.
        seeds: The seeds of each.
        console: Shows the progress.
        match: What is made equal.

    Raises:
        DataError: The data are missing or cannot be used.
    """
    asked = compare.Settings(
        seeds=seeds,
        steps=None,
        minutes=minutes,
        rows=None,
        match=match,
        device="cpu",
        data_dir=settings.data_dir,
        jobs=settings.jobs,
        command=settings.command,
    )
    datasets = {name: load(name, settings.data_dir) for name in names}
    return compare.compare(asked, datasets, contenders, settings.out, False, console)
