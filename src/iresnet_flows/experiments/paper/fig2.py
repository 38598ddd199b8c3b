"""Figure 2: densities of two-dimensional data, i-ResNet beside Glow."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from matplotlib.figure import Figure

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison.contenders import CONTENDERS, Contender
from iresnet_flows.experiments.comparison.contenders.couplings import glow
from iresnet_flows.experiments.comparison.figures import of_density
from iresnet_flows.experiments.comparison.groups import Group, grouped
from iresnet_flows.experiments.comparison.results import Match
from iresnet_flows.experiments.comparison.runs import contender
from iresnet_flows.experiments.data.toys import TOYS
from iresnet_flows.experiments.drawing import blank, save
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.paper.comparisons import compared
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings
from iresnet_flows.experiments.terminal import say_place, terminal
from iresnet_flows.experiments.versions import versions
from iresnet_flows.nflows import InvertibleResidualFlow

__all__ = ["DEEP_GLOW", "DEEP_I_RESNET", "study"]

MINUTES = {"quick": 1.0, "paper": 120.0}
CLOUD = 2000


def deep_i_resnet(features: int, width: int) -> InvertibleResidualFlow:
    return InvertibleResidualFlow(
        features,
        width,
        num_layers=100,
        num_blocks_per_layer=3,
        activation="elu",
        num_elementwise_layers=0,
    )


GLOW = replace(
    CONTENDERS["glow"],
    recipe="12 steps of nflows' ActNorm, LULinear and affine coupling",
    make=partial(glow, depth=12),  # i-ResNet has four blocks of each entry alone, and eight
)
DEEP_GLOW = Contender(
    "glow-100",
    "Glow",
    "100 steps of nflows' ActNorm, LULinear and affine coupling, as in the paper's Figure 2",
    partial(glow, depth=100),
    learning_rate=1e-3,
    least_features=2,
    width=46,
)
DEEP_I_RESNET = Contender(
    "i-resnet-100",
    "i-ResNet",
    "100 residual blocks of this package, ELU MLPs 2-64-64-64-2, as in the paper's Figure 2",
    deep_i_resnet,
    learning_rate=1e-3,
    width=64,
)
SCALES = {
    "quick": (f"{__name__}:GLOW", "i-resnet"),
    "paper": (f"{__name__}:DEEP_GLOW", f"{__name__}:DEEP_I_RESNET"),
}


def study(settings: Settings) -> None:
    """Train both on all two-dimensional data sets, of the same depth and similar parameters.

    Raises:
        UsageError: Models are named.
    """
    if settings.models is not None:
        raise UsageError("fig2 is of Glow and i-ResNet: leave out --models.")
    seed = settings.seed("fig2")
    contenders = [contender(name) for name in SCALES[settings.scale]]
    console = terminal()
    minutes = settings.minutes or MINUTES[settings.scale]
    match: Match = "parameters" if settings.scale == "quick" else "none"
    groups = grouped(compared(settings, list(TOYS), contenders, minutes, (seed,), console, match))

    save(settings.out / "fig2.png", picture(groups))
    table = markdown_table(*tabulated(groups))
    terms = f"`{settings.command}`\n\n{groups[0].terms}, seed {seed}. Test nats, lower is better."
    write_text(settings.out / "fig2.md", f"{terms}\n\n{table}\n")
    record = {
        "command": settings.command,
        "scale": settings.scale,
        "versions": versions(("nflows", "lightning", "numpy")),
        "rows": [{"data": group.data.name, **row} for group in groups for row in group.rows],
    }
    write_json(settings.out / "fig2.json", record)
    console.print(f"{table}\n", soft_wrap=True)
    say_place(console, "The figure is at", settings.out / "fig2.png")


def tabulated(groups: list[Group]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows: the nats of both on each data set, and the difference row by row."""
    titles = [row["title"] for row in groups[0].rows]
    heads = ["data", *titles, f"{titles[1]} below {titles[0]}", "parameters"]
    rows = []
    for group in groups:
        nats = [said(row) for row in group.rows]
        sizes = " / ".join(f"{row['parameters']:,}" for row in group.rows)
        rows.append([group.data.name, *nats, ahead(group), sizes])
    return heads, rows


def said(row: dict[str, Any]) -> str:
    if row["nats"] is None:
        return "failed"
    return f"{row['nats']:.3f} ± {row['nats_standard_error']:.3f}"


def ahead(group: Group) -> str:
    """By how much the second is below the first, with its standard error."""
    first, _ = group.rows
    for gap in group.standings.gaps:
        sign = 1 if gap.model == first["model"] else -1
        return f"{sign * gap.difference.mean:+.3f} ± {gap.difference.standard_error:.3f}"
    return "none"


def picture(groups: list[Group]) -> Figure:
    """A line of panels a data set: its test rows, Glow, i-ResNet, with the nats under each."""
    figure, axes = blank(3 * len(groups), 13.2, 2.3)
    for i, group in enumerate(groups):
        truth, *others = axes[3 * i : 3 * i + 3]
        data = group.data
        rows = group.results[0].arrays["truth"][:CLOUD]
        truth.scatter(rows[:, 0], rows[:, 1], s=1, linewidths=0, color="#333333")
        truth.set(xlim=data.extent[:2], ylim=data.extent[2:])
        truth.set_title(data.name, fontsize=9)
        for axis, run in zip(others, group.results, strict=True):
            axis.set_title(run.title, fontsize=9)
            if run.nats is not None:
                axis.set_xlabel(f"{run.nats:.3f} ± {run.row_standard_error:.3f} nats", fontsize=9)
            if "density" in run.arrays:
                of_density(data, run.arrays["density"])(axis)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    return figure
