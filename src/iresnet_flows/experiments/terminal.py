"""Where commands speak."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

__all__ = ["say_place", "terminal"]


def terminal(quiet: bool = False) -> Console:
    """The terminal, to which brackets in the name of a file are no styles."""
    return Console(quiet=quiet, markup=False)


def say_place(console: Console, what: str, path: Path) -> None:
    """Say where something is, in a line that can be copied whole."""
    console.print(f"{what} {path}", soft_wrap=True)
