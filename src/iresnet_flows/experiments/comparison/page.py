"""A comparison as a page: one file, with everything inside, that needs no network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from iresnet_flows.experiments.comparison import findings, labels
from iresnet_flows.experiments.comparison.figures import Panel, density_panels, sample_panels
from iresnet_flows.experiments.comparison.groups import Group
from iresnet_flows.experiments.comparison.plots import plots
from iresnet_flows.experiments.comparison.results import PROPERTIES
from iresnet_flows.experiments.comparison.styles import Style
from iresnet_flows.experiments.storage import write_text

__all__ = ["write_page"]

INCHES = 2.0
DPI = 140


@dataclass(frozen=True)
class Cell:
    """A contender on a data set, beside the first there.

    Arguments:
        text: Its difference to the first, or why there is none.
        error: The standard error of the difference.
        heat: From 0 for the first to 1 for one that is far behind.
        value: What the column is sorted by.
    """

    text: str
    error: str = ""
    heat: float = 0.0
    value: float | None = None


def write_page(path: Path, groups: Sequence[Group], looks: dict[str, Style], command: str) -> None:
    """Write the page of all groups; every group has a section of its own.

    Arguments:
        path: The file.
        groups: What to report, at least one.
        looks: How each contender is drawn.
        command: What asked for the report.
    """
    environment = Environment(
        loader=PackageLoader("iresnet_flows.experiments.comparison"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn = {group.name: plots(group, looks) for group in groups}
    page = environment.get_template("report.html").render(
        groups=groups,
        looks=looks,
        titles=titles(groups),
        overall=findings.overall(groups),
        heat=heat(groups) if len(groups) > 1 else {},
        plots=drawn,
        pictures={group.name: list(pictures(group)) for group in groups},
        findings=findings,
        labels=labels,
        properties=PROPERTIES,
        command=command,
        commands=sorted({run.command for group in groups for run in group.results}),
        data=embedded,
        plotly=Markup(get_plotlyjs()) if any(drawn.values()) else "",  # noqa: S704
    )
    write_text(path, page)


def embedded(json: str) -> Markup:
    """JSON within a script element, which nothing in it can end."""
    return Markup(json.replace("<", r"\u003c"))  # noqa: S704


def titles(groups: Sequence[Group]) -> dict[str, str]:
    """What tables call each contender."""
    return {row["model"]: row["title"] for group in reversed(groups) for row in group.rows}


def pictures(group: Group) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Headings, and under each the captions and the pictures in base64."""
    for heading, panels in (
        ("Samples", sample_panels(group)),
        ("Densities", density_panels(group)),
    ):
        if panels:
            yield heading, [(panel[0], picture(panel)) for panel in panels]


def picture(panel: Panel) -> str:
    """What a panel shows, without a frame."""
    figure = Figure(figsize=(INCHES, INCHES), dpi=DPI)
    axis = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    panel[1](axis)
    axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def heat(groups: Sequence[Group]) -> dict[str, list[Cell]]:
    """For each contender how far it is behind the first, group by group."""
    return {model: [beside(group, model) for group in groups] for model in titles(groups)}


def beside(group: Group, model: str) -> Cell:
    row: dict[str, Any] | None = next((r for r in group.rows if r["model"] == model), None)
    if row is None:
        return Cell("not run")
    if row["nats"] is None:
        return Cell(labels.cell(row, "nats"))
    if model == group.standings.model:
        return Cell("first", f"{row['nats']:.3f} nats", value=0.0)
    gap = group.standings.gap(model)
    if gap is None:
        return Cell("not comparable")
    d = gap.difference
    usual = median(abs(other.difference.mean) for other in group.standings.gaps)
    behind = max(d.mean, 0.0)
    share = behind / (behind + usual) if behind + usual else 0.0
    error = f"± {d.standard_error:.3f}" + (", tied" if gap.tied else "")
    return Cell(f"{d.mean:+.3f}", error, share, d.mean if math.isfinite(d.mean) else None)
