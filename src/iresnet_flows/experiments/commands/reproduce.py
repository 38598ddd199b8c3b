"""The studies of the paper, and that of posteriors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.commands.app import (
    DataDir,
    app,
    check_budget,
    check_jobs,
    check_seeds,
    command_line,
    interruptible,
    listed,
)
from iresnet_flows.experiments.machines import cores
from iresnet_flows.experiments.storage import alone_in, nothing_to_resume, output_folder
from iresnet_flows.experiments.studies import STUDIES, Settings, study
from iresnet_flows.experiments.terminal import say_place, terminal

__all__ = ["reproduce"]

ON_DATA = ("table4", "fig5")


@app.command()
def reproduce(
    what: Annotated[str, typer.Argument(help=f"posteriors, {', '.join(STUDIES)}.")],
    scale: Annotated[str, typer.Option(help="quick, or paper.")] = "quick",
    targets: Annotated[
        str | None, typer.Option(help="Of posteriors: sbibm's names and eight_schools, by commas.")
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated names of models. Default: all of the study."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="The time of each training, but sbi's own. Default: that of the scale."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Of table4 and fig5: mnist or cifar10. Default: that of the scale."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Repeat for several. Default: those of the scale.")
    ] = None,
    observation: Annotated[
        int | None, typer.Option(help="Of posteriors: sbibm's, 1 to 10. Default: 1.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("iresnet-report"),
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time, of one thread each. Default: the cores.")
    ] = None,
    data_dir: DataDir = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Reproduce a table or a figure of the paper, or measure posteriors against references."""
    check_budget(None, minutes)
    check_jobs(jobs)
    check_seeds(seed or [])
    if resume and not out.is_dir():
        raise nothing_to_resume(out)
    names = listed("--models", models)
    seeds = tuple(dict.fromkeys(seed)) if seed else None
    if data is not None and what not in ON_DATA:
        raise UsageError(f"--data belongs to {' and '.join(ON_DATA)}: leave it out.")
    if what == "posteriors":
        chosen = listed("--targets", targets)
        posteriors(
            *(scale, chosen, names, minutes, seeds, observation, out),
            *(jobs or cores(), data_dir, resume),
        )
        return

    run = study(what)
    for option, value in (("--targets", targets), ("--observation", observation)):
        if value is not None:
            raise UsageError(f"{option} belongs to posteriors: leave it out.")
    settings = Settings(
        *(scale, minutes, names, seeds, data_dir, out, resume, jobs or cores(), command_line()),
        data=data,
    )
    with output_folder(out) as folder, alone_in(folder), interruptible(folder, terminal()):
        run(settings)


def posteriors(
    scale: str,
    targets: tuple[str, ...] | None,
    models: tuple[str, ...] | None,
    minutes: float | None,
    seeds: tuple[int, ...] | None,
    observation: int | None,
    out: Path,
    jobs: int,
    data_dir: Path | None,
    resume: bool,
) -> None:
    """Measure approximate posteriors against reference draws, ours beside others."""
    from iresnet_flows.experiments.posteriors.report import terminal_report
    from iresnet_flows.experiments.posteriors.study import settled
    from iresnet_flows.experiments.posteriors.study import study as run

    settings = settled(
        scale, minutes, targets, models, seeds, 1 if observation is None else observation
    )
    console = terminal()
    with output_folder(out) as folder, alone_in(folder), interruptible(folder, console):
        outcomes = run(settings, data_dir, folder, jobs, resume, command_line(), console)
    for part in terminal_report(outcomes):
        console.print(part)
    say_place(console, "The tables are at", folder / "posteriors.md")
