"""The commands: arguments in, one call, files out."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iresnet_flows.errors import UsageError

__all__ = ["app"]

INTERRUPTED = 130
MINUTES = 1.0
STOPPED = "\nStopped. What is done is in {}; the same command with --resume goes on."

app = typer.Typer(
    name="iresnet-flows",
    help="Invertible residual networks, and what they are compared with.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def commands() -> None:
    """Invertible residual networks, and what they are compared with."""


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
    from iresnet_flows.experiments.compare import Settings
    from iresnet_flows.experiments.compare import compare as run
    from iresnet_flows.experiments.contenders import chosen
    from iresnet_flows.experiments.data import load
    from iresnet_flows.experiments.report import terminal_tables
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
        command = shlex.join(["iresnet-flows", *sys.argv[1:]])
        try:
            rows = run(settings, dataset, contenders, here, resume, command, console)
        except KeyboardInterrupt:
            console.print(STOPPED.format(here))
            raise typer.Exit(INTERRUPTED) from None
        for table in terminal_tables(rows):
            console.print(table)
        console.print("* the paper's Table 1 says otherwise")
        console.print(f"The page is at {here / 'report.html'}")


@app.command()
def reproduce(
    what: Annotated[str, typer.Argument(help="posteriors.")],
    scale: Annotated[str, typer.Option(help="quick, or paper.")] = "quick",
    targets: Annotated[
        str | None, typer.Option(help="Comma-separated, sbibm's names and eight_schools.")
    ] = None,
    models: Annotated[
        str | None, typer.Option(help="Comma-separated names of guides and estimators.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="The time of each fit. Default: that of the scale.")
    ] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Default: 0, 1 and 2.")] = None,
    observation: Annotated[int, typer.Option(help="sbibm's, 1 to 10.")] = 1,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("iresnet-report"),
    jobs: Annotated[
        int | None, typer.Option(help="Runs at a time, of one thread each. Default: the cores.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets of files are.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
) -> None:
    """Measure approximate posteriors against reference draws, ours beside others."""
    if what != "posteriors":
        raise UsageError(f"unknown study {what!r}: there is posteriors.")

    from iresnet_flows.experiments.posteriors.report import terminal_report
    from iresnet_flows.experiments.posteriors.study import cores, settled
    from iresnet_flows.experiments.posteriors.study import study as run
    from iresnet_flows.experiments.storage import output_folder

    check_budget(None, minutes)
    settings = settled(
        scale,
        minutes,
        targets.split(",") if targets is not None else None,
        models.split(",") if models is not None else None,
        seed,
        observation,
    )
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {jobs}.")
    folder = output_folder(out)

    console = Console()
    command = shlex.join(["iresnet-flows", *sys.argv[1:]])
    try:
        outcomes = run(settings, data_dir, folder, jobs or cores(), resume, command, console)
    except KeyboardInterrupt:
        console.print(STOPPED.format(folder))
        raise typer.Exit(INTERRUPTED) from None
    for part in terminal_report(outcomes):
        console.print(part)
    console.print(f"The tables are at {folder / 'posteriors.md'}")


@app.command()
def bench(
    against: Annotated[
        str | None,
        typer.Option(help="Comma-separated: normflows,torchflows,freia,flowcon. Default: all."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few repeats, a few minutes.")] = False,
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("iresnet-bench"),
    threads: Annotated[int, typer.Option(help="How many threads torch uses.")] = 1,
) -> None:
    """Measure our blocks beside those of other libraries, in one run on this machine."""
    from iresnet_flows.experiments.bench import settings
    from iresnet_flows.experiments.bench.bench import bench as run
    from iresnet_flows.experiments.bench.peers import chosen, require_usable
    from iresnet_flows.experiments.bench.report import LEGEND, tally, terminal_tables
    from iresnet_flows.experiments.storage import output_folder

    if threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}.")
    peers, absent = chosen(against.split(",") if against is not None else None)
    for peer in peers:
        require_usable(peer)
    folder = output_folder(out)

    console = Console()
    for peer in absent:
        console.print(f"{peer.title} is left out: pip install {peer.package} to measure it.")
    command = shlex.join(["iresnet-flows", *sys.argv[1:]])
    size = settings.QUICK if quick else settings.FULL
    try:
        rows = run(size, peers, folder, command, threads, console)
    except KeyboardInterrupt:
        console.print(f"\nStopped. What was measured is in {folder}.")
        raise typer.Exit(INTERRUPTED) from None
    for table in terminal_tables(rows):
        console.print(table)
    console.print(LEGEND)
    console.print(f"Targets: {tally(rows)}.")
    console.print(f"The table is at {folder / 'bench.md'}")


def check_budget(steps: int | None, minutes: float | None) -> None:
    if steps is not None and minutes is not None:
        raise UsageError("--steps and --minutes are both a budget: give one of them.")
    if steps is not None and steps < 1:
        raise UsageError(f"--steps must be at least 1, got {steps}.")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes must be a positive number, got {minutes:g}.")


def check_device(device: str) -> None:
    import torch

    known = ("cpu", "gpu", "cuda", "mps", "auto")
    if device not in known:
        raise UsageError(f"--device must be one of {', '.join(known)}, got {device!r}.")
    if device in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch sees no such device here. Use --device cpu.")
