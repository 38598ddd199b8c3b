"""Two clouds of points, every pair of axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.ndimage import gaussian_filter
from torch import Tensor

from iresnet_flows.experiments.data.tables import Array
from iresnet_flows.experiments.drawing import COLOURS, save

__all__ = ["corner"]

MASSES = (0.95, 0.5)
SMOOTHING = 0.9
OURS = COLOURS[4]


def corner(
    path: Path, draws: Tensor, reference: Tensor, labels: Sequence[str], title: str
) -> None:
    """Draws as lines over the reference as areas: half of the mass, and 95 % of it."""
    features = len(labels)
    ours, theirs = draws.double().numpy(), reference[: len(draws)].double().numpy()
    low, high = np.quantile(theirs, [0.0005, 0.9995], axis=0)
    margin = 0.15 * (high - low)
    bins = 96 if features == 2 else 48
    edges = [np.linspace(*ends, bins + 1) for ends in zip(low - margin, high + margin)]

    size = 1.1 + 1.15 * features
    figure = Figure(figsize=(size + 0.6, size), dpi=110 if features > 4 else 140)
    grid = figure.subplots(features, features, squeeze=False)
    for i in range(features):
        for j in range(features):
            axes: Axes = grid[i][j]
            if j > i:
                axes.set_axis_off()
            elif j == i:
                marginal(axes, ours[:, i], theirs[:, i], edges[i])
            else:
                plane(axes, ours[:, [j, i]], theirs[:, [j, i]], (edges[j], edges[i]))
            name(axes, labels, i, j)
    handles = [Line2D([], [], color="0.65", lw=6), Line2D([], [], color=OURS)]
    figure.tight_layout(pad=0.4, h_pad=0.15, w_pad=0.15, rect=(0.012, 0, 1, 0.96))
    names = ["reference", "approximation"]
    figure.legend(handles, names, loc="upper right", frameon=False, fontsize=7, ncols=2)
    figure.text(0.02, 0.99, title, fontsize=9, va="top")
    save(path, figure)


def marginal(axes: Axes, ours: Array, theirs: Array, edges: Array) -> None:
    bins = edges.tolist()
    axes.hist(theirs, bins, density=True, color="0.75")
    axes.hist(ours, bins, density=True, histtype="step", color=OURS)
    axes.set_yticks([])


def plane(axes: Axes, ours: Array, theirs: Array, edges: tuple[Array, Array]) -> None:
    centres = [(e[1:] + e[:-1]) / 2 for e in edges]
    area, line = (density(points, edges) for points in (theirs, ours))
    axes.contourf(*centres, area, [*levels(area), area.max() * 1.01], colors=["0.85", "0.65"])
    if line.max() > 0:
        axes.contour(*centres, line, levels(line), colors=OURS, linewidths=0.9)


def density(points: Array, edges: tuple[Array, Array]) -> Array:
    counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], edges)
    return gaussian_filter(counts.T, SMOOTHING)


def levels(density: Array) -> list[float]:
    """The heights above which these shares of the mass lie, lowest first, all different."""
    heights = np.sort(density.ravel())[::-1]
    shares = heights.cumsum() / heights.sum()
    found = [float(heights[np.searchsorted(shares, mass)]) for mass in MASSES]
    return found if found[0] < found[1] else [found[0], found[0] * 1.0001]


def name(axes: Axes, labels: Sequence[str], row: int, column: int) -> None:
    axes.tick_params(labelsize=5, length=2)
    if row == len(labels) - 1:
        axes.set_xlabel(labels[column], fontsize=7)
    else:
        axes.set_xticklabels([])
    if column == 0 and row > 0:
        axes.set_ylabel(labels[row], fontsize=7)
    elif column != row:
        axes.set_yticklabels([])
