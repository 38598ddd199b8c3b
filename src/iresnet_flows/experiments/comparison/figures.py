"""The pictures of a comparison, from its results alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

from iresnet_flows.experiments.comparison.groups import Group
from iresnet_flows.experiments.comparison.results import Data, Result
from iresnet_flows.experiments.comparison.rows import good
from iresnet_flows.experiments.comparison.series import ceiling, curve, error_shares
from iresnet_flows.experiments.comparison.styles import Style
from iresnet_flows.experiments.data.tables import Array
from iresnet_flows.experiments.drawing import blank, save

__all__ = ["Panel", "density_panels", "draw", "of_density", "sample_panels"]

SHOWN = 24
COST = {
    "train_seconds": "training (s)",
    "log_prob_ms": "log-likelihood of 256 rows (ms)",
    "sample_ms": "256 samples (ms)",
}

Panel = tuple[str, Callable[[Axes], None]]
"""A caption, and what draws beneath it."""


def draw(folder: Path, group: Group, looks: dict[str, Style]) -> None:
    """Write every figure that these results have."""
    if any(map(curve, group.results)):
        save(folder / "curves.png", curves(group, looks))
    if any(row["nats"] is not None for row in group.rows):
        save(folder / "cost.png", cost(group, looks))
    if any(error_shares(runs) for runs in group.runs.values()):
        save(folder / "inverse_error.png", inverse_error(group, looks))
    for name, panels in (("samples", sample_panels(group)), ("densities", density_panels(group))):
        if panels:
            save(folder / f"{name}.png", side_by_side(panels))


def curves(group: Group, looks: dict[str, Style]) -> Figure:
    """Validation nats over the seconds of training."""
    figure, (axis, *_) = blank(1, 7, 4.2)
    for model, runs in group.runs.items():
        label = runs[0].title
        for line in filter(None, map(curve, runs)):
            add_line(axis, line, looks[model], label)
            label = ""
    top = ceiling(group.results)
    if top is not None and top < axis.get_ylim()[1]:
        axis.set_ylim(top=top)
    axis.set(xlabel="training time (s)", ylabel="validation (nats, lower is better)")
    add_legend(axis)
    return figure


def cost(group: Group, looks: dict[str, Style]) -> Figure:
    """Test nats over the time of training, of log-prob and of sampling."""
    figure, axes = blank(len(COST), 10, 3.8)
    for axis, (key, label) in zip(axes, COST.items(), strict=True):
        for row in group.rows:
            if row["nats"] is None or not row[key]:
                continue
            style = looks[row["model"]]
            axis.errorbar(
                row[key],
                row["nats"],
                yerr=row["nats_standard_error"],
                markersize=8,
                color=style.colour,
                marker=style.marker,
                markerfacecolor=style.face,
                label=row["title"],
            )
        axis.set(xscale="log", xlabel=label)
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("test (nats, lower is better)")
    if axes[0].get_legend_handles_labels()[0]:
        add_legend(axes[-1])
    return figure


def inverse_error(group: Group, looks: dict[str, Style]) -> Figure:
    """The error of the inverse, test row by test row, sorted."""
    figure, (axis, *_) = blank(1, 7, 4.2)
    for model, runs in group.runs.items():
        if line := error_shares(runs):
            add_line(axis, line, looks[model], runs[0].title)
    axis.set(
        xscale="log",
        xlabel="largest error of inverse(forward(z)) in a row, float32",
        ylabel="share of test rows at most there",
    )
    add_legend(axis)
    return figure


def add_line(axis: Axes, line: tuple[Array, Array], style: Style, label: str) -> None:
    """A line with a few markers, which tell it apart without colour."""
    axis.plot(
        *line,
        style.line,
        color=style.colour,
        marker=style.marker,
        markerfacecolor=style.face,
        markevery=max(1, len(line[0]) // 8),
        label=label,
    )


def add_legend(axis: Axes) -> None:
    """What the contenders look like, beside the axis."""
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def side_by_side(panels: Sequence[Panel]) -> Figure:
    figure, axes = blank(len(panels), 2.3 * min(len(panels), 6), 2.6)
    for axis, (caption, fill) in zip(axes, panels, strict=True):
        axis.set_title(caption, fontsize=9)
        axis.tick_params(labelsize=7)
        fill(axis)
    return figure


def sample_panels(group: Group) -> list[Panel]:
    """Test rows, and beside them samples of each contender."""
    shown = [run for run in firsts(group) if "samples" in run.arrays]
    truth = next((run.arrays["truth"] for run in shown if "truth" in run.arrays), None)
    rows = [("test data", truth)] if truth is not None else []
    rows += [(run.title, run.arrays["samples"]) for run in shown]
    return [(title, of_rows(group.data, part)) for title, part in rows]


def density_panels(group: Group) -> list[Panel]:
    """The density of each contender over the range of two columns."""
    return [
        (run.title, of_density(group.data, run.arrays["density"]))
        for run in firsts(group)
        if "density" in run.arrays and group.data.features == 2
    ]


def firsts(group: Group) -> Iterator[Result]:
    """The first run of each contender that has a result."""
    for runs in group.runs.values():
        yield from good(runs)[:1]


def of_rows(data: Data, rows: Array) -> Callable[[Axes], None]:
    def fill(axis: Axes) -> None:
        if data.side is not None:
            tiles(axis, rows, data.side)
        elif data.features == 1:
            axis.hist(rows[:, 0], bins=60, range=(data.low[0], data.high[0]), density=True)
        else:
            scatter(axis, data, rows)

    return fill


def scatter(axis: Axes, data: Data, rows: Array) -> None:
    """The first two columns, in the range of the data."""
    size = 2 if len(rows) > 100 else 14
    axis.scatter(rows[:, 0], rows[:, 1], s=size, linewidths=0, alpha=0.6)
    axis.set_xlim(data.low[0], data.high[0])
    axis.set_ylim(data.low[1], data.high[1])
    axis.set_xlabel(data.columns[0], fontsize=8)
    axis.set_ylabel(data.columns[1], fontsize=8)


def tiles(axis: Axes, rows: Array, side: int) -> None:
    """Square pictures, four or fewer in a line."""
    rows = rows[:SHOWN]
    lines = math.ceil(len(rows) / 4)
    sheet: Array = np.zeros((lines * 4, side, side))
    sheet[: len(rows)] = rows.reshape(-1, side, side)
    sheet = np.pad(sheet, ((0, 0), (1, 1), (1, 1)))
    side += 2
    sheet = sheet.reshape(lines, 4, side, side).swapaxes(1, 2).reshape(lines * side, 4 * side)
    axis.imshow(sheet, cmap="gray_r")
    axis.set_axis_off()


def of_density(data: Data, density: Array) -> Callable[[Axes], None]:
    def fill(axis: Axes) -> None:
        axis.imshow(density.T, origin="lower", extent=data.extent, aspect="auto", cmap="viridis")

    return fill
