"""A table of test errors, ours beside the paper's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from iresnet_flows.experiments.averages import mean, standard_error, worst
from iresnet_flows.experiments.images.catalogue import recipe
from iresnet_flows.experiments.images.classification import Outcome, perform
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.specs import Spec, begin, in_parallel
from iresnet_flows.experiments.markdown import markdown_table, number
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings, chosen
from iresnet_flows.experiments.terminal import say_place, terminal, titled_table
from iresnet_flows.experiments.versions import versions

__all__ = ["ErrorTable"]

OURS, TWIN = "i-resnet", "vanilla"
HEADS = (
    *("", "error %", "± seeds", "± images", "paper %", "guaranteed inverse"),
    *("pixel error of the inverse", "largest bound", "claim", "parameters", "steps", "s"),
)
SHOWN = 6  # of them in a terminal
NOTES = """\
error: the share of all test images. ± seeds: standard error of the mean over the seeds; \
± images: that over the test images.

pixel error of the inverse: the largest of the first 100 test images, pixels in [0, 1], float32, \
worst seed. Without a guaranteed inverse it is that of 100 iterations a block.

largest bound: a certified bound of the largest Lipschitz constant of a residual branch, worst \
seed. claim: what it is held to, c for each of three convolutions."""


@dataclass(frozen=True)
class ErrorTable:
    """What a table of the paper compares.

    Arguments:
        name: That of the files.
        models: The names of the classifiers.
        data: The data sets of each scale.
        minutes: The time of a training at the scale ``quick``.
        seeds: The seeds of each scale.
        repeated: The models to which further seeds belong at the scale ``quick``, where the
            command names none.
        paper: The paper's errors in %, by data set and model.
        verified: Those of them that were read in a copy of the paper.
    """

    name: str
    models: tuple[str, ...]
    data: Mapping[str, tuple[str, ...]]
    minutes: float
    seeds: Mapping[str, tuple[int, ...]]
    repeated: tuple[str, ...]
    paper: Mapping[str, Mapping[str, float]]
    verified: frozenset[tuple[str, str]] = field(default=frozenset())

    def study(self, settings: Settings) -> None:
        """Train, measure and write the table, after each training anew.

        Raises:
            DataError: The images are missing or cannot be used.
            UsageError: A model is unknown, or there is another study to resume.
        """
        models = chosen("model", settings.models, self.models)
        data = [load_images(n, settings.data_dir) for n in self.data[settings.scale]]
        specs = [
            Spec.of(settings, each, "classifier", model, seed, self.minutes)
            for each in data
            for seed in settings.seeds or self.seeds[settings.scale]
            for model in models
            if self.wants(settings, model, seed)
        ]
        begin(specs, data, settings.resume)
        console, outcomes = terminal(), list[Outcome]()
        for outcome in in_parallel(specs, settings.jobs, console, "classifiers", perform):
            outcomes.append(outcome)
            self.write(settings, specs, outcomes)
        for name, rows in by_data(self.rows(settings, outcomes)):
            lines = (cells(row)[:SHOWN] for row in rows)
            console.print(titled_table(f"{self.name}, {name}", HEADS[:SHOWN], lines))
        for line in verdict(self.rows(settings, outcomes)):
            console.print(line)
        say_place(console, "The table is at", settings.out / f"{self.name}.md")

    def wants(self, settings: Settings, model: str, seed: int) -> bool:
        first = seed == self.seeds[settings.scale][0]
        told = settings.seeds is not None or settings.scale == "paper"
        return told or first or model in self.repeated

    def rows(self, settings: Settings, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
        """A row for each data set and model."""
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in outcomes:
            groups.setdefault((outcome.data, outcome.model), []).append(outcome)
        order = sorted(groups, key=lambda key: (key[0], self.models.index(key[1])))
        return [
            {
                "data": name,
                "model": model,
                "title": recipe("classifier", model, settings.scale).title,
                **summary(groups[name, model]),
                "paper": self.paper.get(name, {}).get(model),
                "paper_verified": (name, model) in self.verified,
            }
            for name, model in order
        ]

    def write(
        self, settings: Settings, specs: Sequence[Spec], outcomes: Sequence[Outcome]
    ) -> None:
        """The table as Markdown and JSON."""
        rows = self.rows(settings, outcomes)
        record = {
            "command": settings.command,
            "scale": settings.scale,
            "versions": versions(("lightning", "normflows", "numpy")),
            "verdict": verdict(rows),
            "rows": rows,
            "runs": [asdict(outcome) for outcome in outcomes],
        }
        write_json(settings.out / f"{self.name}.json", record)

        parts = [f"`{settings.command}`", effort(specs, outcomes)]
        for name, group in by_data(rows):
            parts += [f"**{name}**", markdown_table(HEADS, map(cells, group))]
        parts += [*verdict(rows), NOTES, *cautions(rows)]
        recipes = {r["model"]: recipe("classifier", r["model"], settings.scale) for r in rows}
        parts += ["\n".join(f"* {each.title}: {each.text}." for each in recipes.values())]
        parts += [f"{o.model}, seed {o.seed}: {o.failure}." for o in outcomes if o.failure]
        write_text(settings.out / f"{self.name}.md", "\n\n".join(parts) + "\n")


def effort(specs: Sequence[Spec], outcomes: Sequence[Outcome]) -> str:
    run = specs[0].run
    each = f"{run.epochs} epochs" if run.epochs else f"{run.minutes:g} minutes on one thread"
    sizes = {o.data: (o.train_images, o.test_images) for o in outcomes}
    used = "; ".join(
        f"{name}: all {train} training images (validation images among them), "
        f"all {test} test images"
        for name, (train, test) in sizes.items()
    )
    return f"{each} a training, {len(outcomes)} of {len(specs)} done. {used}."


def cautions(rows: Sequence[dict[str, Any]]) -> list[str]:
    doubtful = [r for r in rows if r["paper"] is not None and not r["paper_verified"]]
    if not doubtful:
        return []
    return ["(unverified): quoted from memory, not read in a copy of the paper."]


def summary(group: Sequence[Outcome]) -> dict[str, Any]:
    """The means over the seeds and the worst of what should be small."""
    found = [o for o in group if o.failure is None]
    wrong = [o.wrong for o in found]
    return {
        "seeds": sorted(o.seed for o in found),
        "failed": sorted(o.seed for o in group if o.failure is not None),
        "wrong": mean(wrong),
        "seed_error": standard_error(wrong),
        # The seeds share their test images, so that more of them do not make it smaller.
        "image_error": mean(o.wrong_error for o in found),
        "guaranteed": any(o.guaranteed for o in found),
        "decodes": any(o.decodes for o in found),
        "pixel_error": worst([o.pixel_error for o in found]),
        "bounded": any(o.bound is not None or o.claim is not None for o in found),
        "bound": worst([o.bound for o in found]),
        "claim": next((o.claim for o in found), None),
        "parameters": max((o.parameters for o in found), default=None),
        "steps": mean(o.steps for o in found),
        "seconds": mean(o.seconds for o in found),
    }


def by_data(
    rows: Sequence[dict[str, Any]],
) -> Iterable[tuple[str, list[dict[str, Any]]]]:
    for name in dict.fromkeys(row["data"] for row in rows):
        yield name, [row for row in rows if row["data"] == name]


def cells(row: dict[str, Any]) -> list[str]:
    lost = f" ({len(row['failed'])} failed)" if row["failed"] else ""
    paper = "" if row["paper"] is None else f"{row['paper']:.2f}"
    doubt = "" if row["paper"] is None or row["paper_verified"] else " (unverified)"
    pixels = number(row["pixel_error"], ".1e")
    inverse = "yes" if pixels or not row["decodes"] else "yes, in exact arithmetic"
    return [
        row["title"],
        (number(row["wrong"], ".2%").rstrip("%") or "failed") + lost,
        number(row["seed_error"], ".2%").rstrip("%"),
        number(row["image_error"], ".2%").rstrip("%"),
        paper + doubt,
        inverse if row["guaranteed"] else "no",
        (pixels or "not finite") if row["decodes"] else "",
        (number(row["bound"], ".4g") or "not finite") if row["bounded"] else "",
        number(row["claim"], ".4g"),
        number(row["parameters"], ","),
        number(row["steps"], ",.0f"),
        number(row["seconds"], ",.0f"),
    ]


def verdict(rows: Sequence[dict[str, Any]]) -> list[str]:
    """How far i-ResNet is from its twin, and whether its bounds are as claimed."""
    lines = []
    for name, group in by_data(rows):
        found = {row["model"]: row for row in group if row["wrong"] is not None}
        if OURS in found and TWIN in found:
            ours, twin = found[OURS], found[TWIN]
            kind = "seed_error" if ours["seed_error"] and twin["seed_error"] else "image_error"
            error = math.hypot(ours[kind], twin[kind])
            gap = ours["wrong"] - twin["wrong"]
            lines.append(
                f"{name}: c = 0.9 is {100 * gap:+.2f} ± {100 * error:.2f} points from Vanilla "
                f"({'seeds' if kind == 'seed_error' else 'images'})."
            )
        held = [r for r in found.values() if r["claim"] is not None]
        if held:
            lost = [r["title"] for r in held if r["bound"] is None]
            broken = [r["title"] for r in held if (r["bound"] or 0) > r["claim"]]
            told = [f"bounds that are not finite: {', '.join(lost)}"] * bool(lost)
            told += [f"bounds above their claim: {', '.join(broken)}"] * bool(broken)
            lines += [f"{name}: {each}." for each in told or ["every bound is within its claim"]]
    return lines
