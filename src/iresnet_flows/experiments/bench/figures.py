"""The pictures of growth, to be read without colour too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from iresnet_flows.experiments.bench.rows import Point
from iresnet_flows.experiments.drawing import COLOURS, save

__all__ = ["draw"]

# A marker and a dash for each colour.
STYLES = tuple(zip(COLOURS, "os^Dv", ("-", "--", "-.", ":", (0, (5, 1))), strict=False))
GAP = 0.055  # between two names, in heights of a panel
LABELS = {
    "features": "features d",
    "width": "width of a hidden layer",
    "depth": "hidden layers",
    "batch": "rows of a batch",
}


def draw(folder: Path, points: Sequence[Point], labels: Mapping[str, str]) -> None:
    """A picture of each sweep: training step, log-density and samples.

    Arguments:
        folder: Where they are written.
        points: The times.
        labels: What lines are called, by the contestants' titles.
    """
    for sweep in dict.fromkeys(p.sweep for p in points):
        here = [p for p in points if p.sweep == sweep]
        measures = list(dict.fromkeys(p.measure for p in here))
        figure = Figure(figsize=(3.6 * len(measures), 3.8), layout="constrained", dpi=140)
        for i, measure in enumerate(measures):
            axes = figure.add_subplot(1, len(measures), i + 1)
            panel(axes, [p for p in here if p.measure == measure], labels)
            axes.set(title=measure, xlabel=LABELS[sweep], ylabel="ms" if i == 0 else "")
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
        save(folder / f"{sweep}.svg", figure)


def panel(axes: Axes, points: Sequence[Point], labels: Mapping[str, str]) -> None:
    """The times of each contestant, with its name at the end of its line."""
    axes.set(xscale="log", yscale="log")
    ends: dict[str, tuple[int, float]] = {}
    for (title, label), (colour, marker, dash) in zip(labels.items(), STYLES, strict=False):
        known = {
            p.size: p.milliseconds
            for p in points
            if p.contestant == title and p.milliseconds is not None
        }
        axes.plot(
            list(known),
            list(known.values()),
            color=colour,
            marker=marker,
            linestyle=dash,
            label=label,
        )
        if known:
            ends[label] = list(known.items())[-1]

    axes.margins(x=0.3, y=0.1)
    axes.set_xticks(sorted({p.size for p in points}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)
    axes.grid(which="major", linewidth=0.3)
    name_lines(axes, ends)


def name_lines(axes: Axes, ends: dict[str, tuple[int, float]]) -> None:
    """Names beside the ends of their lines, none upon another."""
    low, high = (math.log(limit) for limit in axes.get_ylim())
    below = -GAP
    for label, (size, milliseconds) in sorted(ends.items(), key=lambda end: end[1][1]):
        below = max((math.log(milliseconds) - low) / (high - low), below + GAP)
        axes.annotate(
            label,
            (size, below),
            xycoords=axes.get_xaxis_transform(),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
