"""Figure 3: images, and what an inverse makes of their features."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor

from iresnet_flows.blocks import InvertibleResidualBlock
from iresnet_flows.experiments.drawing import COLOURS, MARKERS, save
from iresnet_flows.experiments.images.classification import RESTORED, Outcome, perform
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.runs import load_run
from iresnet_flows.experiments.images.specs import Spec, ready
from iresnet_flows.experiments.images.tasks import scaled
from iresnet_flows.experiments.machines import torch_device
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings, chosen
from iresnet_flows.experiments.terminal import say_place, terminal
from iresnet_flows.experiments.versions import versions
from iresnet_flows.layers import Stack
from iresnet_flows.models import InvertibleClassifier, IteratedBlock

__all__ = ["Restoration", "iterated", "study"]

MODELS = ("i-resnet", "vanilla")
DATA = "cifar10"
MINUTES = 8.0
STEPS = (1, 2, 3, 5, 10, 20, 50, 100)
ITERATED = 32
SHOWN = 10
RANGE = 1e-9, 1e2  # an iteration that diverges leaves it
EXPLANATION = (
    "Errors of pixels in [0, 1] over the first {count} test images of {data}, float32; the "
    "picture shows the first {shown}, after {steps} iterations a block."
)


@dataclass(frozen=True, eq=False)
class Restoration:
    """What the inverse of a classifier makes of the features of images.

    Arguments:
        title: That of the model.
        outcome: What its training came to.
        images: The images after the most steps, (N, C, H, W).
        largest: The largest error of a pixel after each number of `STEPS`.
        mean: The mean error likewise.
    """

    title: str
    outcome: Outcome
    images: Tensor
    largest: tuple[float, ...]
    mean: tuple[float, ...]


def study(settings: Settings) -> None:
    """Restore test images by the inverses of i-ResNet and of its unconstrained twin.

    Models that a table has trained in the same folder, with the same scale and seed, are taken
    as they are.

    Raises:
        DataError: The images are missing or cannot be used.
        UsageError: A model is unknown, or a training failed.
    """
    models = chosen("model", settings.models, MODELS)
    seed = settings.seed("fig3")
    data = load_images(DATA, settings.data_dir)
    specs = [Spec.of(settings, data, "classifier", model, seed, MINUTES) for model in models]
    console = terminal()
    outcomes = ready(specs, data, settings, console, "classifiers", perform)

    images = scaled(data.test.pixels[:ITERATED])
    found = [restored(*each, images) for each in zip(specs, outcomes, strict=True)]
    save(settings.out / "fig3.png", picture(images, found))
    report(settings, data.name, len(images), found)
    for line in sentences(found):
        console.print(line)
    say_place(console, "The figure is at", settings.out / "fig3.png")


@torch.no_grad()
def restored(spec: Spec, outcome: Outcome, images: Tensor) -> Restoration:
    """The images and their errors after each number of steps."""
    model = cast("InvertibleClassifier", load_run(spec.folder, spec.device)[1])
    images = images.to(torch_device(spec.device))
    features = model.encode(images)
    decoded = [iterated(model, steps).decode(features) for steps in STEPS]
    errors = [(each - images).abs() for each in decoded]
    return Restoration(
        spec.run.recipe().title,
        outcome,
        decoded[-1].cpu(),
        tuple(float(e.max()) for e in errors),
        tuple(float(e.mean()) for e in errors),
    )


def iterated(model: InvertibleClassifier, steps: int) -> InvertibleClassifier:
    """The classifier with so many steps of the plain iteration as the inverse of each block."""
    twin = copy.deepcopy(model)
    for stack in [module for module in twin.modules() if isinstance(module, Stack)]:
        for index, layer in enumerate(stack.each()):
            if isinstance(layer, InvertibleResidualBlock):
                stack.layers[index] = IteratedBlock(layer.branch, steps)
            if isinstance(layer, IteratedBlock):
                stack.layers[index] = IteratedBlock(layer.g, steps)
    return twin


def picture(images: Tensor, found: Sequence[Restoration]) -> Figure:
    """Originals above what was restored, and the errors against the steps."""
    rows = {"originals": images, **{each.title: each.images for each in found}}
    figure = Figure(figsize=(9, 1.1 * len(rows) + 3.6), layout="constrained", dpi=140)
    *strips, axis = figure.subplots(
        len(rows) + 1, 1, height_ratios=[1.0] * len(rows) + [3.4]
    ).tolist()
    for strip, (title, pixels) in zip(strips, rows.items(), strict=True):
        shown = pixels[:SHOWN].nan_to_num(0.0).clamp(0, 1)
        wide = torch.cat(list(shown), -1).movedim(0, -1)
        strip.imshow(wide.expand(-1, -1, 3).numpy())
        strip.set_title(title, fontsize=9, loc="left")
        strip.set_axis_off()
    for each, colour, marker in zip(found, COLOURS, MARKERS, strict=False):
        for values, line, name in ((each.largest, "-", "largest"), (each.mean, ":", "mean")):
            axis.plot(STEPS, values, line, color=colour, marker=marker, markersize=4)
            seen = any(value <= RANGE[1] for value in values)
            axis.lines[-1].set_label(f"{each.title}, {name}" + ("" if seen else " (above)"))
    axis.set(
        xscale="log", yscale="log", xlabel="iterations a block", ylabel="error of pixels in [0, 1]"
    )
    axis.set_ylim(*RANGE)
    axis.legend(frameon=False, fontsize=8)
    return figure


def report(settings: Settings, data: str, count: int, found: Sequence[Restoration]) -> None:
    """The errors as Markdown and JSON."""
    record = {
        "command": settings.command,
        "data": data,
        "images": count,
        "versions": versions(("lightning", "numpy")),
        "iterations": STEPS,
        "rows": [row(each) for each in found],
    }
    write_json(settings.out / "fig3.json", record)

    heads = ["iterations a block"]
    heads += [f"{each.title}, {kind}" for each in found for kind in ("largest", "mean")]
    lines = [
        [str(steps), *(shown(v) for each in found for v in (each.largest[i], each.mean[i]))]
        for i, steps in enumerate(STEPS)
    ]
    parts = [
        f"`{settings.command}`",
        "![Originals, what was restored, and the errors](fig3.png)",
        EXPLANATION.format(count=count, data=data, steps=STEPS[-1], shown=SHOWN),
        markdown_table(heads, lines),
        *sentences(found),
    ]
    write_text(settings.out / "fig3.md", "\n\n".join(parts) + "\n")


def row(each: Restoration) -> dict[str, Any]:
    return {
        "model": each.outcome.model,
        "title": each.title,
        "seed": each.outcome.seed,
        "steps": each.outcome.steps,
        "seconds": each.outcome.seconds,
        "wrong": each.outcome.wrong,
        "largest": each.largest,
        "mean": each.mean,
        "certified": each.outcome.pixel_error if each.outcome.guaranteed else None,
    }


def sentences(found: Sequence[Restoration]) -> list[str]:
    """What each model was trained to, and the error of a certified inverse."""
    lines = []
    for each in found:
        outcome = each.outcome
        said = (
            f"{each.title}: {outcome.steps} steps in {outcome.seconds:.0f} s, "
            f"{100 * (outcome.wrong or 0.0):.2f} % of {outcome.test_images} test images wrong; "
        )
        if outcome.guaranteed and outcome.pixel_error is not None:
            said += (
                f"its certified inverse errs by up to {outcome.pixel_error:.1e} in a pixel of "
                f"{RESTORED} test images."
            )
        elif outcome.guaranteed:
            said += "its certified inverse says that it missed its tolerance."
        else:
            said += (
                f"after {STEPS[-1]} iterations the largest error of a pixel is "
                f"{shown(each.largest[-1])}."
            )
        lines.append(said)
    return lines


def shown(value: float) -> str:
    return f"{value:.1e}" if value < float("inf") else "not finite"
