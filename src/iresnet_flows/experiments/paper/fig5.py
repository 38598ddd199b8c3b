"""Figure 5: samples of the i-ResNet density at several temperatures, beside real images."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from torch import Tensor

from iresnet_flows.experiments.drawing import save
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.likelihoods import MINUTES, Outcome, data_of, perform
from iresnet_flows.experiments.images.runs import load_run
from iresnet_flows.experiments.images.scores import draw, grid
from iresnet_flows.experiments.images.specs import Spec, ready
from iresnet_flows.experiments.paper.table4 import MODELS
from iresnet_flows.experiments.storage import write_json
from iresnet_flows.experiments.studies import Settings, chosen
from iresnet_flows.experiments.terminal import say_place, terminal
from iresnet_flows.experiments.versions import versions

__all__ = ["TEMPERATURES", "study"]

TEMPERATURES = (0.7, 0.85, 1.0)
COUNT = 36


def study(settings: Settings) -> None:
    """Draw images from densities, those of i-ResNet where no others are named.

    Models that Table 4 has trained in the same folder, with the same scale and seed, are taken
    as they are.

    Raises:
        DataError: The images are missing or cannot be used.
        UsageError: A model or the data are unknown, or a training failed.
    """
    models = chosen("model", settings.models or ("i-resnet",), MODELS)
    seed = settings.seed("fig5")
    data = load_images(data_of(settings)[-1], settings.data_dir)
    specs = [Spec.of(settings, data, "density", model, seed, MINUTES) for model in models]
    console = terminal()
    outcomes = ready(specs, data, settings, console, "densities", perform)

    panels = {"test images": data.test.pixels[:COUNT]}
    found: list[dict[str, Any]] = []
    for spec, outcome in zip(specs, outcomes, strict=True):
        recipe = spec.run.recipe()
        run, model = load_run(spec.folder, spec.device)
        for temperature in TEMPERATURES:
            drawn = draw(run, model, COUNT, temperature, None, seed)
            panels[f"{recipe.title}, temperature {temperature:g}"] = drawn
        found.append(row(outcome, recipe.title, recipe.average))
    save(settings.out / "fig5.png", picture(panels))
    record = {
        "command": settings.command,
        "scale": settings.scale,
        "versions": versions(("lightning", "numpy")),
        "temperatures": TEMPERATURES,
        "images": COUNT,
        "rows": found,
    }
    write_json(settings.out / "fig5.json", record)
    for each in found:
        console.print(sentence(each))
    say_place(console, "The figure is at", settings.out / "fig5.png")


def row(outcome: Outcome, title: str, average: float | None) -> dict[str, Any]:
    """What the samples are of; the weights are their moving average with that decay, if any."""
    return {
        "data": outcome.data,
        "model": outcome.model,
        "title": title,
        "seed": outcome.seed,
        "train_images": outcome.train_images,
        "test_images": outcome.test_images,
        "bits": outcome.bits,
        "bits_error": outcome.bits_error,
        "steps": outcome.steps,
        "seconds": outcome.seconds,
        "average": average,
    }


def sentence(row: dict[str, Any]) -> str:
    """What the samples of a model are worth."""
    average = row["average"]
    weights = "as they are" if average is None else f"averaged with a decay of {average:g}"
    return (
        f"{row['title']}: {row['steps']} steps on {row['train_images']} images of {row['data']}, "
        f"weights {weights}; {row['bits']:.3f} bits/dim on {row['test_images']} test images."
    )


def picture(panels: dict[str, Tensor]) -> Figure:
    """The panels in rows of four."""
    rows = -(-len(panels) // 4)
    columns = min(4, len(panels))
    figure = Figure(figsize=(3 * columns, 3.2 * rows), layout="constrained", dpi=140)
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, pixels) in zip(axes, panels.items(), strict=False):
        axis.imshow(grid(pixels))
        axis.set_title(title, fontsize=9)
    return figure
