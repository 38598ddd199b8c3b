"""Flows side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast, get_args

import typer
from rich.console import Console

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.commands.app import (
    DataDir,
    app,
    check_budget,
    check_device,
    check_jobs,
    check_seeds,
    command_line,
    interruptible,
    listed,
)
from iresnet_flows.experiments.terminal import say_place, terminal

__all__ = ["compare"]

MINUTES = 1.0
STOPPED = "\nStopped. What is done is in {}; the same command goes on."


@app.command()
def compare(
    data: Annotated[
        list[str] | None,
        typer.Argument(
            help="As digits (the default), two-moons or my.csv; .npy and .parquet will do too."
        ),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated, as nice,i-resnet, or all. Default: the paper's nine."),
    ] = None,
    contender: Annotated[
        list[str] | None,
        typer.Option(help="A flow of your own, package.module:factory. Repeat for several."),
    ] = None,
    match: Annotated[
        str, typer.Option(help="What is equal: parameters, time (of a step) or none.")
    ] = "parameters",
    steps: Annotated[int | None, typer.Option(help="The budget of each, in steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help=f"The budget of each, in minutes. Default: {MINUTES:g}.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(help="Train on the first so many rows. Default: all.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Of the trainings, 0 by default. Repeat for several.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("iresnet-report"),
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time, of one thread each. Default: the cores.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu or auto.")] = "cpu",
    data_dir: DataDir = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Train anew what --out already holds.")
    ] = False,
) -> None:
    """Train flows alike on the same data; measure and report them side by side."""
    # Lightning takes seconds to import, which --help need not.
    from iresnet_flows.experiments.comparison.compare import Settings
    from iresnet_flows.experiments.comparison.compare import compare as run
    from iresnet_flows.experiments.comparison.contenders import chosen
    from iresnet_flows.experiments.comparison.report import terminal_report
    from iresnet_flows.experiments.comparison.results import Match
    from iresnet_flows.experiments.data import load
    from iresnet_flows.experiments.machines import keep_freed_memory
    from iresnet_flows.experiments.storage import alone_in, output_folder

    if match not in get_args(Match):
        raise UsageError(f"--match must be one of {', '.join(get_args(Match))}, got {match!r}.")
    check_budget(steps, minutes)
    check_device(device)
    check_seeds(seed or [])
    console = terminal()
    who = chosen(named(models, console), contender or [])
    names = list(dict.fromkeys(data or ["digits"]))
    settings = Settings(
        seeds=tuple(dict.fromkeys(seed or [0])),
        steps=steps,
        minutes=None if steps is not None else minutes or MINUTES,
        rows=rows,
        match=cast("Match", match),
        device=device,
        data_dir=data_dir,
        jobs=runs_at_a_time(jobs, device),
        command=command_line(),
    )
    datasets = {name: load(name, data_dir).first(rows) for name in names}
    keep_freed_memory()  # also where runs are carried out here, one at a time
    with output_folder(out) as folder, alone_in(folder), interruptible(folder, console, STOPPED):
        results = run(settings, datasets, who, folder, fresh, console)
    for part in terminal_report(results):
        console.print(part)
    say_place(console, "The page is at", folder / "report.html")


def runs_at_a_time(jobs: int | None, device: str) -> int:
    """As many as asked for, or as there are cores; on a GPU one.

    Raises:
        UsageError: It is less than one, or more than one on a GPU.
    """
    from iresnet_flows.experiments.machines import cores, torch_device

    check_jobs(jobs)
    if torch_device(device).type == "cpu":
        return jobs or cores()
    if jobs is not None and jobs > 1:
        raise UsageError(f"--jobs {jobs} is for the CPU: on a GPU leave it out, or say --jobs 1.")
    return 1


def named(models: str | None, console: Console) -> Sequence[str] | None:
    """The contenders of --models, where ``all`` are those whose libraries are there."""
    from iresnet_flows.experiments.comparison.contenders import installed

    names = listed("--models", models)
    if names is None or "all" not in names:
        return names
    if len(names) > 1:
        raise UsageError(f"--models all has all of them: leave out the rest of {models!r}.")
    there, left_out = installed()
    console.print("\n".join(left_out))
    return there
