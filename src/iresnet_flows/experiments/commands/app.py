"""The command line's root, and what its commands share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iresnet_flows import __version__
from iresnet_flows.errors import UsageError

__all__ = [
    "DataDir",
    "app",
    "check_budget",
    "check_device",
    "check_jobs",
    "check_seeds",
    "command_line",
    "interruptible",
    "listed",
]

INTERRUPTED = 130
STOPPED = "\nStopped. What is done is in {}; the same command with --resume goes on."

DataDir = Annotated[
    Path | None,
    typer.Option(
        help="The folder of mnist/, cifar10/ and the like. Default: IRESNET_FLOWS_DATA, or "
        "~/.cache/iresnet_flows."
    ),
]

app = typer.Typer(
    name="iresnet-flows",
    help="Invertible residual networks, and what they are compared with.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"iresnet-flows {__version__}, torch {version('torch')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def commands(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001  its callback has answered
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show versions."),
    ] = False,
) -> None:
    """Invertible residual networks, and what they are compared with."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def command_line() -> str:
    """The command as it was typed."""
    return shlex.join(["iresnet-flows", *sys.argv[1:]])


@contextmanager
def interruptible(folder: Path, console: Console, said: str = STOPPED) -> Iterator[None]:
    """Ctrl-C within ends the command with a line that says what to do next."""
    try:
        yield
    except KeyboardInterrupt:
        console.print(said.format(folder), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


def check_budget(steps: int | None, minutes: float | None, epochs: int | None = None) -> None:
    counts = {"--steps": steps, "--epochs": epochs}
    given = [name for name, count in counts.items() if count is not None]
    given += ["--minutes"] if minutes is not None else []
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} are each a budget: give one of them.")
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UsageError(f"{name} must be at least 1, got {count}.")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise UsageError(f"--minutes must be a positive number, got {minutes:g}.")


def listed(option: str, text: str | None) -> tuple[str, ...] | None:
    """The names in a value with commas; None where the option is not given."""
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise UsageError(f"{option} has an empty name in {text!r}: give names between commas.")
    return names


def check_jobs(jobs: int | None) -> None:
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, got {jobs}.")


def check_seeds(seeds: Sequence[int]) -> None:
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UsageError(f"--seed must be 0 to {2**32 - 1}, got {seed}.")


def check_device(device: str) -> None:
    import torch

    known = ("cpu", "gpu", "cuda", "auto")
    if device == "mps":
        raise UsageError("--device mps: it lacks float64, which bounds need. Use --device cpu.")
    if device not in known:
        raise UsageError(f"--device must be one of {', '.join(known)}, got {device!r}.")
    if device in ("gpu", "cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch sees no such device here. Use --device cpu.")
