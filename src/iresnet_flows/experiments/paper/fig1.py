"""Figure 1: the paths of points on a line through a ResNet and through an i-ResNet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iresnet_flows.experiments.drawing import COLOURS, save
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.paper.systems import (
    DRAWN,
    EDGE,
    GRID,
    INVERSE_STEPS,
    MODELS,
    NOISE,
    SAMPLES,
    SHAPES,
    Outcome,
    System,
    perform,
)
from iresnet_flows.experiments.paper.trainings import each_trained
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings, chosen
from iresnet_flows.experiments.terminal import narrow_table, say_place, terminal
from iresnet_flows.experiments.versions import versions

__all__ = ["study"]

HEADS = (
    *("model", "seed", "rms x³", "rms x", "crossings", "slope", "bound", "inverse"),
    *("steps", "s"),
)
EXPLANATION = (
    "Both systems have {blocks} blocks with hidden layers of {hidden} features, and are trained "
    "on the same {samples} points of [-2, 2], whose targets have Gaussian noise of deviation "
    "{noise:g}, drawn once: x³ after half of the blocks, x after all. *rms* is the error against "
    "each target without its noise. *crossings* are those of the {drawn} paths drawn, from one "
    "block to the next, between neighbours. *slope* is the smallest of the whole map, "
    "and *bound* what is certified to lie below it, the product of 1 - L over the blocks. "
    "*inverse* is the largest of |x - F⁻¹(F(x))| in float64: by the certified inverse of the "
    "i-ResNet, and by {steps} fixed-point iterations a block of the ResNet. All are read on "
    "{grid} points."
)


def study(settings: Settings) -> None:
    """Train the two systems, follow points through them, and find where their order is lost.

    Raises:
        UsageError: A model is unknown, or a training failed.
    """
    models = chosen("model", settings.models, tuple(MODELS))
    shape, console = SHAPES[settings.scale], terminal()
    systems = [
        System(model, seed, shape, settings.minutes, folder(settings, model, seed))
        for seed in settings.seeds or shape.seeds
        for model in models
    ]
    found = each_trained(systems, settings, "systems", perform, console)

    first = [each for each in found if each.system.seed == systems[0].seed]
    save(settings.out / "fig1.png", picture(first))
    report(settings, found)
    console.print(narrow_table(HEADS, map(cells, found), words={"model"}))
    for line in sentences(found):
        console.print(line)
    say_place(console, "The figure is at", settings.out / "fig1.png")


def folder(settings: Settings, model: str, seed: int) -> Path:
    return settings.out / "runs" / f"fig1-{settings.scale}-{model}-seed{seed}"


def picture(found: Sequence[Outcome]) -> Figure:
    """The paths of each system, side by side, above the map that they come to."""
    figure = Figure(figsize=(4.7 * len(found), 6.4), layout="constrained", dpi=120)
    above, below = figure.subplots(
        2, len(found), sharey="row", squeeze=False, height_ratios=[1.7, 1.0]
    ).tolist()
    for path, whole, each in zip(above, below, found, strict=True):
        draw_paths(path, each)
        draw_map(whole, each)
    above[0].set_ylabel("value")
    below[0].set_ylabel("value after all blocks")
    return figure


def draw_paths(axis: Axes, each: Outcome) -> None:
    """Paths from left to right, coloured by where they begin, and their crossings."""
    colours = mpl.colormaps["viridis"]
    depths = range(len(each.paths))
    for i, path in enumerate(each.paths.T):
        axis.plot(depths, path, color=colours(0.92 * i / (DRAWN - 1)), linewidth=1.3)
    axis.plot(*each.crossings.T, "o", color="white", markeredgecolor="black", ms=6, zorder=3)
    half = depths[-1] // 2
    axis.axvline(half, color="0.6", linestyle=":", linewidth=1)
    count = len(each.crossings)
    said = f"{count} crossing{'s' if count > 1 else ''}" if count else "no crossings"
    axis.set_title(f"{MODELS[each.system.model]}: {said}", fontsize=12)
    names = ["0\nx", f"{half}\naim: x³", f"{depths[-1]}\naim: x"]
    axis.set_xticks([0, half, depths[-1]], names)
    axis.set_xlabel("blocks passed")
    axis.margins(x=0.02)
    axis.spines[["top", "right"]].set_visible(False)


def draw_map(axis: Axes, each: Outcome) -> None:
    """The whole map, in another colour where it falls, and the identity."""
    x = torch.linspace(-EDGE, EDGE, GRID)
    falls = each.whole.diff() <= 0
    falling = each.whole[1:].where(falls, math.nan)
    axis.plot(x, x, ":", color="0.5", label="x")
    axis.plot(x, each.whole, color=COLOURS[0], label="the map")
    if falls.any():
        axis.plot(x[1:], falling, color=COLOURS[4], linewidth=2.5, label="where it turns back")
    axis.set_xlabel("input x")
    axis.legend(frameon=False, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)


def report(settings: Settings, found: Sequence[Outcome]) -> None:
    """The numbers as Markdown and JSON."""
    record = {
        "command": settings.command,
        "scale": settings.scale,
        "versions": versions(("numpy", "matplotlib")),
        "noise": NOISE,
        "rows": [row(each) for each in found],
    }
    write_json(settings.out / "fig1.json", record)
    shape = SHAPES[settings.scale]
    explanation = EXPLANATION.format(
        blocks=shape.blocks,
        hidden=" and ".join(map(str, shape.hidden)),
        samples=SAMPLES,
        noise=NOISE,
        grid=GRID,
        drawn=DRAWN,
        steps=INVERSE_STEPS,
    )
    parts = [
        f"`{settings.command}`",
        "![Paths of points through the blocks of each system](fig1.png)",
        explanation,
        markdown_table(HEADS, [cells(each) for each in found]),
        *sentences(found),
    ]
    write_text(settings.out / "fig1.md", "\n\n".join(parts) + "\n")


def row(each: Outcome) -> dict[str, Any]:
    return {
        **each.system.record(),
        "rms_errors": each.errors,
        "crossings": each.crossings.tolist(),
        "smallest_slope": each.slope,
        "certified_slope": each.certified,
        "inverse_error": each.inverse,
        "optimiser_steps": each.trained.steps,
        "seconds": each.trained.seconds,
    }


def cells(each: Outcome) -> list[str]:
    return [
        *(MODELS[each.system.model], str(each.system.seed)),
        *(f"{error:.3f}" for error in each.errors),
        *(str(len(each.crossings)), f"{each.slope:.3g}"),
        "none" if each.certified is None else f"{each.certified:.1e}",
        f"{each.inverse:.1e}" if math.isfinite(each.inverse) else "not finite",
        *(f"{each.trained.steps:,}", f"{each.trained.seconds:.0f}"),
    ]


def sentences(found: Sequence[Outcome]) -> Iterable[str]:
    """What became of the order of the points."""
    for model, title in MODELS.items():
        group = [each for each in found if each.system.model == model]
        if not group:
            continue
        lost = sum(len(each.crossings) > 0 for each in group)
        falls = sum(each.slope <= 0 for each in group)
        yield (
            f"{title}: paths cross in {lost} of {len(group)} trainings, and the whole map turns "
            f"back somewhere in {falls}."
        )
