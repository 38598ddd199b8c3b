"""Our blocks beside those of other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.commands.app import app, command_line, interruptible, listed
from iresnet_flows.experiments.terminal import say_place, terminal

__all__ = ["bench"]

STOPPED = "\nStopped. What was measured is in {}."


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
    from iresnet_flows.experiments.machines import cores
    from iresnet_flows.experiments.storage import alone_in, output_folder

    if not 1 <= threads <= cores():
        raise UsageError(f"--threads must be 1 to {cores()}, the cores here, got {threads}.")
    peers, absent = chosen(listed("--against", against))
    for peer in peers:
        require_usable(peer)

    console = terminal()
    for peer in absent:
        console.print(f"{peer.title} is left out: pip install {peer.package} to measure it.")
    size = settings.QUICK if quick else settings.FULL
    with output_folder(out) as folder, alone_in(folder), interruptible(folder, console, STOPPED):
        rows = run(size, peers, folder, command_line(), threads, console)
    for table in terminal_tables(rows):
        console.print(table)
    console.print(LEGEND)
    console.print(f"Targets: {tally(rows)}.")
    say_place(console, "The table is at", folder / "bench.md")
