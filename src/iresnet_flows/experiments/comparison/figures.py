"""The pictures of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from nflows.flows.base import Flow
from torch import Tensor
from torch.nn.functional import pad

from iresnet_flows.experiments.comparison.contenders import Contender
from iresnet_flows.experiments.comparison.runs import Run
from iresnet_flows.experiments.comparison.training import prepared
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.drawing import COLOURS, MARKERS, blank, save

__all__ = ["draw"]

DIGIT = 8
SHOWN = 24
CLOUD = 2000
GRID = 160


def draw(
    folder: Path,
    dataset: Dataset,
    contenders: Sequence[Contender],
    runs: dict[str, list[Run]],
    rows: list[dict[str, Any]],
) -> None:
    """Write every figure that these data have."""
    flows = {
        c.title: run.flow
        for c in contenders
        if (run := next((r for r in runs[c.name] if r.error is None), None)) is not None
    }
    styles = {c.title: (COLOURS[i % 7], MARKERS[i % 7]) for i, c in enumerate(contenders)}
    titles = {c.name: c.title for c in contenders}

    save(folder / "curves.png", curves(contenders, runs, styles))
    if flows:
        save(folder / "samples.png", samples(dataset, flows))
        save(folder / "inverse_error.png", inverse_error(dataset, flows, styles))
        save(folder / "cost.png", cost([r for r in rows if r["step_ms"]], titles, styles))
    if flows and dataset.features == 2:
        save(folder / "densities.png", densities(dataset, flows))


def curves(
    contenders: Sequence[Contender],
    runs: dict[str, list[Run]],
    styles: dict[str, tuple[str, str]],
) -> Figure:
    """Validation nats over the seconds of training."""
    figure, axes = blank(1, 7, 4.2)
    tops = []
    for contender in contenders:
        colour, marker = styles[contender.title]
        for i, run in enumerate(run for run in runs[contender.name] if run.curve):
            _, seconds, nats = zip(*run.curve, strict=True)
            label = contender.title if i == 0 else None
            every = max(1, len(nats) // 8)
            axes[0].plot(seconds, nats, color=colour, marker=marker, markevery=every, label=label)
            tops.append(nats[len(nats) // 8])
    if tops:
        low, high = axes[0].get_ylim()
        axes[0].set_ylim(low, min(high, max(tops) + 0.05 * (max(tops) - low)))
    axes[0].set(xlabel="training time (s)", ylabel="validation (nats, lower is better)")
    axes[0].legend(frameon=False)
    return figure


def samples(dataset: Dataset, flows: dict[str, Flow]) -> Figure:
    """Samples of each flow beside rows of the test data."""
    drawn = {"test data": dataset.test[:CLOUD]}
    for title, flow in flows.items():
        drawn[title] = dataset.restore(sample(flow, CLOUD))

    height = 3.2 if dataset.features == DIGIT**2 else 2.6
    figure, axes = blank(len(drawn), 2.3 * min(len(drawn), 6), height)
    for axis, (title, rows) in zip(axes, drawn.items(), strict=True):
        axis.set_title(title, fontsize=10)
        if dataset.features == DIGIT**2:
            tiles = pad(rows[:SHOWN].reshape(6, 4, DIGIT, DIGIT), (1, 1, 1, 1))
            side = DIGIT + 2
            axis.imshow(tiles.transpose(1, 2).reshape(6 * side, 4 * side).numpy(), cmap="gray_r")
            axis.set_axis_off()
        else:
            scatter(axis, dataset, rows)
    return figure


def scatter(axis: Axes, dataset: Dataset, rows: Tensor) -> None:
    """The first two columns, or the only one as a histogram, in the range of the data."""
    low, high = dataset.train.amin(0), dataset.train.amax(0)
    if dataset.features == 1:
        axis.hist(rows[:, 0].numpy(), bins=60, range=(float(low[0]), float(high[0])), density=True)
        return
    axis.scatter(rows[:, 0].numpy(), rows[:, 1].numpy(), s=2, linewidths=0, alpha=0.6)
    axis.set_xlim(float(low[0]), float(high[0]))
    axis.set_ylim(float(low[1]), float(high[1]))
    axis.set_xlabel(dataset.columns[0], fontsize=8)
    axis.set_ylabel(dataset.columns[1], fontsize=8)
    axis.tick_params(labelsize=7)


def densities(dataset: Dataset, flows: dict[str, Flow]) -> Figure:
    """The density of each flow over the range of the data."""
    low, high = dataset.train.amin(0), dataset.train.amax(0)
    margin = 0.1 * (high - low)
    low, high = low - margin, high + margin
    x, y = (torch.linspace(float(a), float(b), GRID) for a, b in zip(low, high, strict=True))
    points = torch.cartesian_prod(x, y).double()
    z = dataset.prepare(points)

    figure, axes = blank(len(flows), 2.3 * min(len(flows), 6), 2.6)
    for axis, (title, flow) in zip(axes, flows.items(), strict=True):
        with torch.no_grad():
            density = flow.log_prob(z).exp().reshape(GRID, GRID)
        axis.imshow(
            density.T.numpy(),
            origin="lower",
            extent=(float(low[0]), float(high[0]), float(low[1]), float(high[1])),
            aspect="auto",
            cmap="viridis",
        )
        with torch.no_grad():
            nats = float(-flow.log_prob(prepared(dataset, dataset.test)).mean())
        axis.set_title(f"{title}: {nats + dataset.log_scale:.3f} nats", fontsize=9)
        axis.tick_params(labelsize=7)
    return figure


def inverse_error(
    dataset: Dataset, flows: dict[str, Flow], styles: dict[str, tuple[str, str]]
) -> Figure:
    """The error of inverse(forward(z)), test row by test row, sorted."""
    z = prepared(dataset, dataset.test)
    figure, axes = blank(1, 7, 4.2)
    for title, flow in flows.items():
        colour, marker = styles[title]
        with torch.no_grad():
            noise, _ = flow._transform(z)
            restored, _ = flow._transform.inverse(noise)
        error = (restored - z).abs().amax(-1).clamp_min(1e-9).sort().values
        share = torch.arange(1, len(error) + 1) / len(error)
        every = max(1, len(error) // 8)
        axes[0].plot(
            error.numpy(), share.numpy(), color=colour, marker=marker, markevery=every, label=title
        )
    axes[0].set(
        xscale="log",
        xlabel="largest error of inverse(forward(z)) in a row, float32",
        ylabel="share of test rows at most there",
    )
    axes[0].legend(frameon=False)
    return figure


def cost(
    rows: list[dict[str, Any]], titles: dict[str, str], styles: dict[str, tuple[str, str]]
) -> Figure:
    """Test nats over the time of a step, of log_prob and of sampling."""
    figure, axes = blank(3, 10, 3.8)
    measures = {
        "step_ms": "training step",
        "log_prob_ms": "log-likelihood",
        "sample_ms": "samples",
    }
    for axis, (key, label) in zip(axes, measures.items(), strict=True):
        for row in rows:
            colour, marker = styles[titles[row["model"]]]
            axis.errorbar(
                row[key],
                row["nats"],
                yerr=row["nats_standard_error"],
                color=colour,
                marker=marker,
                markersize=8,
                label=titles[row["model"]],
            )
        axis.set(xscale="log", xlabel=f"{label} of 256 rows (ms)")
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
    axes[0].set_ylabel("test (nats, lower is better)")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def sample(flow: Flow, count: int) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return flow.sample(count)
