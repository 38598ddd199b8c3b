"""Table 4: densities of images by their bits for each dimension, and normflows' beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from matplotlib.figure import Figure

from iresnet_flows.experiments.averages import mean, standard_error
from iresnet_flows.experiments.drawing import COLOURS, save
from iresnet_flows.experiments.images.catalogue import recipe
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.likelihoods import MINUTES, Outcome, data_of, perform
from iresnet_flows.experiments.images.specs import Spec, begin, in_parallel
from iresnet_flows.experiments.markdown import markdown_table, number
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings, chosen
from iresnet_flows.experiments.terminal import say_place, terminal, titled_table
from iresnet_flows.experiments.versions import versions

__all__ = ["MODELS", "study"]

MODELS = ("i-resnet", "nice", "made", "maf", "realnvp", "glow", "ffjord", "normflows-residual")
PAPER = {
    "mnist": {
        "nice": 4.36,
        "made": 2.04,
        "maf": 1.89,
        "realnvp": 1.06,
        "glow": 1.05,
        "ffjord": 0.99,
        "i-resnet": 1.06,
    },
    "cifar10": {
        "nice": 4.48,
        "made": 5.67,
        "maf": 4.31,
        "realnvp": 3.49,
        "glow": 3.35,
        "ffjord": 3.40,
        "i-resnet": 3.45,
    },
}
VERIFIED = {"maf", "realnvp", "glow", "ffjord", "i-resnet"}
HEADS = (
    *("data", "model", "bits/dim", "± images", "± seeds", "paper", "parameters"),
    *("steps", "s", "ms a step"),
)
SHOWN = ("data", "model", "bits/dim", "± images", "paper", "parameters", "ms a step")
NOTES = """\
bits/dim: -log2 p of the test images, an upper bound with one draw of the noise, of whole pixels \
with d their number (784 for MNIST). ± images: standard error over the images; ± seeds: that of \
the mean over the seeds.

paper: at its own sizes and times. (unverified): quoted from memory; the others as \
Kobyzev, Prince and Brubaker's review quotes them. The paper's NICE on CIFAR-10 is on whitened \
images and compares with none.

Curves: bits/dim of training batches against the seconds of training."""


def study(settings: Settings) -> None:
    """Train the densities of Table 4 and write the table, after each training anew.

    Raises:
        DataError: The images are missing or cannot be used.
        UsageError: A model or the data are unknown, or there is another study to resume.
    """
    models = chosen("model", settings.models, MODELS)
    data = [load_images(name, settings.data_dir) for name in data_of(settings)]
    specs = [
        Spec.of(settings, each, "density", model, seed, MINUTES)
        for each in data
        for seed in settings.seeds or (0,)
        for model in models
    ]
    begin(specs, data, settings.resume)
    console, outcomes = terminal(), list[Outcome]()
    for outcome in in_parallel(specs, settings.jobs, console, "densities", perform):
        outcomes.append(outcome)
        write(settings, specs, outcomes)
    lines = map(shown, rows(settings, outcomes))
    console.print(titled_table("table4", SHOWN, lines, words=2))
    say_place(console, "The table is at", settings.out / "table4.md")


def rows(settings: Settings, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each data set and model."""
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.data, outcome.model), []).append(outcome)
    order = sorted(groups, key=lambda key: (list(PAPER).index(key[0]), MODELS.index(key[1])))
    return [
        {
            "data": name,
            "model": model,
            "title": recipe("density", model, settings.scale).title,
            **summary(groups[name, model]),
            "paper": PAPER[name].get(model),
            "paper_verified": model in VERIFIED,
        }
        for name, model in order
    ]


def summary(group: Sequence[Outcome]) -> dict[str, Any]:
    """Means over the seeds that came to a result."""
    found = [o for o in group if o.bits is not None]
    bits = [o.bits for o in found]
    steps = sum(o.steps for o in found)
    return {
        "seeds": [o.seed for o in found],
        "failures": {str(o.seed): o.failure for o in group if o.failure is not None},
        "bits": mean(bits),
        # The seeds share their test images, so that more of them do not make it smaller.
        "image_error": mean(o.bits_error for o in found),
        "seed_error": standard_error(bits),
        "parameters": max((o.parameters for o in found), default=None),
        "steps": mean(o.steps for o in found),
        "seconds": mean(o.seconds for o in found),
        "step_ms": 1000 * sum(o.seconds for o in found) / steps if steps else None,
    }


def write(settings: Settings, specs: Sequence[Spec], outcomes: Sequence[Outcome]) -> None:
    """The table as Markdown and JSON, and the curves."""
    found = rows(settings, outcomes)
    record = {
        "command": settings.command,
        "scale": settings.scale,
        "versions": versions(("lightning", "nflows", "torchdiffeq", "numpy")),
        "rows": found,
        "runs": [asdict(outcome) for outcome in outcomes],
    }
    write_json(settings.out / "table4.json", record)
    save(settings.out / "table4.png", curves(settings, outcomes))

    recipes = {row["model"]: recipe("density", row["model"], settings.scale) for row in found}
    parts = [
        f"`{settings.command}`",
        effort(specs, outcomes),
        markdown_table(HEADS, map(cells, found)),
        "![Bits/dim in the course of training](table4.png)",
        NOTES,
        "\n".join(f"* {each.title}: {each.text}." for each in recipes.values()),
        *(f"{o.model}, {o.data}, seed {o.seed}: {o.failure}." for o in outcomes if o.failure),
    ]
    write_text(settings.out / "table4.md", "\n\n".join(parts) + "\n")


def effort(specs: Sequence[Spec], outcomes: Sequence[Outcome]) -> str:
    run = specs[0].run
    each = f"{run.epochs} epochs" if run.epochs else f"{run.minutes:g} minutes"
    sizes = {o.data: (o.train_images, o.test_images) for o in outcomes}
    used = "; ".join(
        f"{name}: all {train} training images, the first {test} test images"
        for name, (train, test) in sizes.items()
    )
    return f"{each} a training, {len(outcomes)} of {len(specs)} done. {used}."


def cells(row: dict[str, Any]) -> list[str]:
    lost = f" ({len(row['failures'])} failed)" if row["failures"] else ""
    return [
        row["data"],
        row["title"],
        (number(row["bits"], ".3f") or "none") + lost,
        number(row["image_error"], ".3f"),
        number(row["seed_error"], ".3f"),
        published(row),
        number(row["parameters"], ","),
        number(row["steps"], ",.0f"),
        number(row["seconds"], ",.0f"),
        number(row["step_ms"], ",.0f"),
    ]


def published(row: dict[str, Any]) -> str:
    if row["paper"] is None:
        return ""
    return f"{row['paper']:.2f}" + ("" if row["paper_verified"] else " (unverified)")


def shown(row: dict[str, Any]) -> list[str]:
    line = dict(zip(HEADS, cells(row), strict=True))
    return [line[head] for head in SHOWN]


def curves(settings: Settings, outcomes: Sequence[Outcome]) -> Figure:
    """Bits/dim of training batches against the seconds, a panel for each data set."""
    names = list(dict.fromkeys(o.data for o in outcomes))
    figure = Figure(figsize=(7 * len(names), 4.2), layout="constrained", dpi=140)
    for axis, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        lowest = math.inf
        for model, colour in zip(MODELS, (*COLOURS, "grey"), strict=True):
            label: str | None = recipe("density", model, settings.scale).title
            for outcome in outcomes:
                if (outcome.data, outcome.model) == (name, model) and outcome.curve:
                    seconds, bits = zip(*outcome.curve, strict=True)
                    axis.plot(seconds, bits, color=colour, label=label, linewidth=1.4)
                    lowest, label = min(lowest, *bits), None
        axis.set(title=name, xlabel="seconds of training", ylabel="bits/dim of training batches")
        if lowest < math.inf:
            axis.set_ylim(lowest - 0.2, lowest + 4)
            axis.legend(frameon=False, fontsize=8)
    return figure
