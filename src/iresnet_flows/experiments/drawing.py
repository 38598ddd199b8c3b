"""What the figures of all studies share."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iresnet_flows.experiments.storage import write

__all__ = ["COLOURS", "MARKERS", "blank", "save"]

# Okabe and Ito's colours, told apart without colour vision, with a marker each.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "*", "v", "P")


def blank(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure with that many axes, at most six in a row; no global state of pyplot."""
    columns = min(count, 6)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(width, height * lines), layout="constrained", dpi=140)
    axes = [figure.add_subplot(lines, columns, i + 1) for i in range(count)]
    return figure, axes


def save(path: Path, figure: Figure) -> None:
    """Write it, whole or not at all."""
    write(path, figure.savefig)
