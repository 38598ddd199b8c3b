"""Flows side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iresnet_flows.experiments.commands.app import (
    app,
    check_budget,
    check_device,
    command_line,
    interruptible,
)

__all__ = ["compare"]

MINUTES = 1.0


@app.command()
def compare(
    data: Annotated[
        list[str] | None,
        typer.Argument(help="Built-in names, or .csv, .npy and .parquet files. Default: digits."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option(help="Comma-separated. Default: nice,realnvp,glow,ffjord,i-resnet."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="The budget of each, in steps.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help=f"The budget of each, in minutes. Default: {MINUTES:g}.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Repeat for several. Default: 0.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("iresnet-report"),
    device: Annotated[str, typer.Option(help="cpu, gpu or auto.")] = "cpu",
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets of files are.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Train flows alike on the same data; measure and report them side by side."""
    # Lightning takes seconds to import, which --help need not.
    from iresnet_flows.experiments.comparison.compare import Settings
    from iresnet_flows.experiments.comparison.compare import compare as run
    from iresnet_flows.experiments.comparison.contenders import chosen
    from iresnet_flows.experiments.comparison.report import terminal_tables
    from iresnet_flows.experiments.data import load
    from iresnet_flows.experiments.storage import output_folder

    names = list(dict.fromkeys(data or ["digits"]))
    seeds = tuple(dict.fromkeys(seed or [0]))
    contenders = chosen(models.split(",") if models is not None else None)
    check_budget(steps, minutes)
    check_device(device)
    datasets = [load(name, data_dir) for name in names]
    folder = output_folder(out)

    console = Console()
    for name, dataset in zip(names, datasets, strict=True):
        here = folder if len(names) == 1 else output_folder(folder / Path(name).stem)
        settings = Settings(
            data=name,
            models=tuple(contender.name for contender in contenders),
            seeds=seeds,
            steps=steps,
            minutes=None if steps is not None else minutes or MINUTES,
            device=device,
        )
        with interruptible(here, console):
            rows = run(settings, dataset, contenders, here, resume, command_line(), console)
        for table in terminal_tables(rows):
            console.print(table)
        console.print("* the paper's Table 1 says otherwise")
        console.print(f"The page is at {here / 'report.html'}")
