"""The pictures of growth, to be read without colour too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from iresnet_flows.experiments.bench.rows import Point
from iresnet_flows.experiments.storage import write

__all__ = ["draw"]

# Okabe and Ito's colours, told apart without colour vision, with a marker and a dash each.
STYLES = (
    ("#0072B2", "o", "-"),
    ("#E69F00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#D55E00", "v", (0, (5, 1))),
)
LABELS = {
    "features": "features d",
    "width": "width of a hidden layer",
    "depth": "hidden layers",
    "batch": "rows of a batch",
}


def draw(folder: Path, points: Sequence[Point], titles: Sequence[str]) -> None:
    """A picture of each sweep: training step, log-density and samples."""
    for sweep in dict.fromkeys(p.sweep for p in points):
        here = [p for p in points if p.sweep == sweep]
        measures = list(dict.fromkeys(p.measure for p in here))
        figure = Figure(figsize=(3.6 * len(measures), 3.4), layout="constrained", dpi=140)
        FigureCanvasAgg(figure)
        for i, measure in enumerate(measures):
            axes = figure.add_subplot(1, len(measures), i + 1)
            panel(axes, [p for p in here if p.measure == measure], titles)
            axes.set(title=measure, xlabel=LABELS[sweep], ylabel="ms" if i == 0 else "")
        figure.axes[0].legend(frameon=False, fontsize=8)
        write(folder / f"{sweep}.svg", figure.savefig)


def panel(axes: Axes, points: Sequence[Point], titles: Sequence[str]) -> None:
    """The times of each contestant, with its name at the end of its line."""
    for title, (colour, marker, dash) in zip(titles, STYLES, strict=False):
        known = [
            (p.size, p.milliseconds)
            for p in points
            if p.contestant == title and p.milliseconds is not None
        ]
        if not known:
            continue
        sizes, times = zip(*known, strict=True)
        axes.plot(sizes, times, color=colour, marker=marker, linestyle=dash, label=title)
        axes.annotate(
            title, (sizes[-1], times[-1]), xytext=(5, 0), textcoords="offset points", fontsize=7
        )
    axes.set(xscale="log", yscale="log")
    axes.margins(x=0.25)
    axes.set_xticks(sorted({p.size for p in points}))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(which="major", linewidth=0.3)
