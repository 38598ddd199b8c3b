"""Where commands speak."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.box import SIMPLE, SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

__all__ = [
    "Track",
    "budget_bars",
    "counted",
    "counter",
    "narrow_table",
    "say_place",
    "terminal",
    "titled_table",
    "tracked",
]

Track = Callable[[Sequence[int]], Iterable[int]]
"""Gives what it is given, and shows how far that has come."""


def terminal(quiet: bool = False) -> Console:
    """The terminal, to which brackets in the name of a file are no styles."""
    return Console(quiet=quiet, markup=False)


def counted(count: int, noun: str) -> str:
    """So many of something.

    >>> counted(1, "step"), counted(2, "step")
    ('1 step', '2 steps')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def say_place(console: Console, what: str, path: Path) -> None:
    """Say where something is, in a line that can be copied whole."""
    console.print(f"{what} {path}", soft_wrap=True)


def titled_table(
    title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1
) -> Table:
    """A table whose first columns, so many, are words and the others numbers."""
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for i, head in enumerate(heads):
        table.add_column(head, justify="left" if i < words else "right")
    for row in rows:
        table.add_row(*row)
    return table


def narrow_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], words: Container[str]
) -> Table:
    """A table with little between its columns; under some heads stand words, not numbers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    for head in heads:
        table.add_column(head, justify="left" if head in words else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def counter(console: Console) -> Progress:
    """Bars that count what is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )


@contextmanager
def tracked(console: Console, title: str) -> Iterator[Track]:
    """A bar for each sequence that is gone through within."""
    with ExitStack() as stack:

        def track(sequence: Sequence[int]) -> Iterable[int]:
            # One that is shown and not used leaves an empty line, before an error say.
            progress = stack.enter_context(counter(console))
            return progress.track(sequence, description=title)

        yield track


def budget_bars(console: Console) -> Progress:
    """Bars of what trainings have spent of their budgets, with words of each in `loss`."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[loss]}", markup=False),
        TimeRemainingColumn(),
        console=console,
    )
