"""What the studies are told alike; values that make no sense end them with one line."""

from __future__ import annotations

import argparse
from math import inf
from pathlib import Path
from typing import NoReturn

__all__ = ["DATA", "Options", "count", "of_trainings", "positive"]

DATA = ("pinwheel", "checkerboard", "digits", "power")


class Options(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def positive(text: str) -> float:
    """A finite number above 0."""
    number = float(text)
    if not 0 < number < inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, got {text}.")
    return number


def count(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}.")
    return number


def of_trainings(description: str | None, seconds: float) -> Options:
    """The options of a study of many short trainings.

    Arguments:
        description: What it is.
        seconds: How long a training takes unless told otherwise.
    """
    said = f"processor time of a training, {seconds:g} by default"
    parser = Options(description=description)
    parser.add_argument("--seconds", type=positive, default=seconds, help=said)
    parser.add_argument(
        "--jobs", type=count, default=1, help="runs at a time, of one thread each, 1 by default"
    )
    parser.add_argument(
        "--data", nargs="+", default=list(DATA), help="names or files; by default the four sets"
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="the folder of power/; by default IRESNET_FLOWS_DATA, or ~/.cache/iresnet_flows",
    )
    return parser
