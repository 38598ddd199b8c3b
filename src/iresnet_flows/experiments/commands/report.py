"""What runs of a comparison come to, wherever they were made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iresnet_flows.experiments.commands.app import app, command_line
from iresnet_flows.experiments.terminal import say_place, terminal

__all__ = ["report"]


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="What --out of compare named.")
    ],
    out: Annotated[Path, typer.Option(help="The folder of the report.")] = Path("iresnet-report"),
) -> None:
    """Merge the results of comparisons, and report them together."""
    from iresnet_flows.experiments.comparison.report import terminal_report, write_reports
    from iresnet_flows.experiments.comparison.results import found
    from iresnet_flows.experiments.storage import output_folder

    results = found(folders)
    with output_folder(out) as folder:
        write_reports(results, folder, command_line())

    console = terminal()
    for part in terminal_report(results):
        console.print(part)
    say_place(console, "The page is at", folder / "report.html")
