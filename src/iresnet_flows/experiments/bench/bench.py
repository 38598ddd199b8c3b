"""The benchmark: what is measured, in order, and what is written meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from iresnet_flows.experiments.bench import accuracy, bounds, growth, images, memory, speed
from iresnet_flows.experiments.bench.contestants import EQUAL, OURS
from iresnet_flows.experiments.bench.figures import draw
from iresnet_flows.experiments.bench.flows import build
from iresnet_flows.experiments.bench.peers import Peer
from iresnet_flows.experiments.bench.report import write_report
from iresnet_flows.experiments.bench.rows import Point, Row
from iresnet_flows.experiments.bench.settings import Settings
from iresnet_flows.experiments.machines import on_threads
from iresnet_flows.experiments.versions import versions
from iresnet_flows.experiments.widths import trainable

__all__ = ["bench"]

MEASURES = (speed, images, accuracy, memory, bounds, growth)


@dataclass
class Book:
    """What was measured so far, on the disk after each entry.

    Arguments:
        folder: Where bench.json, bench.md and figures/ are.
        head: What is known before anything is measured.
        labels: What lines of figures are called, by the contestants' titles.
    """

    folder: Path
    head: dict[str, Any]
    labels: dict[str, str]
    rows: list[Row] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    start: float = field(default_factory=time.perf_counter)

    def enter(self, found: Sequence[Row | Point], last: bool) -> None:
        """Write down what a task has found."""
        points = [point for point in found if isinstance(point, Point)]
        self.rows += [row for row in found if isinstance(row, Row)]
        self.points += points

        growth = [vars(point) for point in self.points]
        seconds = time.perf_counter() - self.start
        record = {**self.head, "finished": last, "seconds": seconds, "growth": growth}
        write_report(self.folder, record, self.rows)
        sweeps = {point.sweep for point in points}
        if sweeps:
            changed = [point for point in self.points if point.sweep in sweeps]
            draw(self.folder / "figures", changed, self.labels)


def bench(
    settings: Settings,
    peers: Sequence[Peer],
    folder: Path,
    command: str,
    threads: int,
    console: Console,
) -> list[Row]:
    """Measure all, and write it down piece by piece.

    Arguments:
        settings: How much is measured.
        peers: The libraries beside ours.
        folder: Where the report is written.
        command: The command line, for the report.
        threads: How many threads torch may use.
        console: Where the progress bar goes.
    """
    tasks = [task for part in MEASURES for task in part.tasks(settings, peers)]
    head = {
        "command": command,
        "threads": threads,
        "settings": settings.record(),
        "versions": versions((peer.package for peer in peers), threads),
        "parameters": parameters(settings, peers),
        "notes": [f"{c.title}: {c.note}." for c in (EQUAL, *peers) if c.note],
    }
    labels = {OURS.title: "ours"} | {peer.title: peer.title for peer in peers}
    book = Book(folder, head, labels)
    with on_threads(threads), progress(console) as bar:
        job = bar.add_task("", total=len(tasks))
        for task in tasks:
            bar.update(job, description=task.title)
            book.enter(task.run(), last=task is tasks[-1])
            bar.advance(job)
    return book.rows


def progress(console: Console) -> Progress:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("[progress.description]{task.description}"),
    )
    return Progress(*columns, console=console)


def parameters(settings: Settings, peers: Sequence[Peer]) -> list[dict[str, Any]]:
    """How many each contestant trains, on each network that is timed."""
    return [
        {"contestant": c.title, "net": str(case.net), "parameters": trainable(build(c, case.net))}
        for case in settings.cases
        for c in (OURS, EQUAL, *peers)
    ]
