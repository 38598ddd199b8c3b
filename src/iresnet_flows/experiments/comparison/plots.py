"""The plots of a page that answer to a pointer; their text and lines take the page's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plotly.graph_objects import Figure, Scatter

from iresnet_flows.experiments.comparison.groups import Group
from iresnet_flows.experiments.comparison.series import ceiling, curve, error_shares
from iresnet_flows.experiments.comparison.styles import Style

__all__ = ["Plot", "plots"]

CLEAR = "rgba(0,0,0,0)"
NEUTRAL = "#808080"
FEW_DECADES = 3
NAME = "<b>%{fullData.name}</b><extra></extra><br>"
MARKED = 5
COST = {
    "train_seconds": ("Nats against training time", "training (s)"),
    "log_prob_ms": ("Nats against log-prob time", "log-prob of 256 rows (ms)"),
    "sample_ms": ("Nats against sampling time", "256 samples (ms)"),
}


@dataclass(frozen=True)
class Plot:
    """A plot and what is said of it.

    Arguments:
        title: Its heading.
        caption: What it shows, in a sentence.
        json: Plotly's traces and layout.
    """

    title: str
    caption: str
    json: str


def plots(group: Group, looks: dict[str, Style]) -> list[Plot]:
    """Those that these results have."""
    found = [cost(group, looks, key) for key in COST]
    found += [curves(group, looks), inverse_error(group, looks)]
    return [plot for plot in found if plot is not None]


def cost(group: Group, looks: dict[str, Style], key: str) -> Plot | None:
    rows = [row for row in group.rows if row["nats"] is not None and row[key]]
    if not rows:
        return None
    title, label = COST[key]
    figure = Figure(layout=layout(label, "test nats"))
    figure.update_xaxes(logarithmic([row[key] for row in rows]))
    for row in rows:
        figure.add_trace(
            Scatter(
                x=[row[key]],
                y=[row["nats"]],
                error_y={"array": [row["nats_standard_error"] or 0], "thickness": 1.5},
                mode="markers",
                hovertemplate=f"{NAME}{label}: %{{x:.4g}}<br>test nats: %{{y:.4f}}",
                **look(row["title"], row["model"], looks[row["model"]]),
            )
        )
    caption = "Left is faster, down is better; bars are standard errors."
    return Plot(title, caption, figure.to_json())


def curves(group: Group, looks: dict[str, Style]) -> Plot | None:
    figure = Figure(layout=layout("training (s)", "validation nats"))
    for model, runs in group.runs.items():
        for run in runs:
            if line := curve(run):
                named = f"{run.title}, seed {run.plan.seed}"
                add_line(figure, line, look(named, model, looks[model]), "%{x:.4g} s: %{y:.4f}")
    if not figure.data:
        return None
    top = ceiling(group.results)
    if top is not None:
        figure.update_yaxes(autorangeoptions={"maxallowed": top})
    caption = "Validation while training, a line a seed; down is better."
    return Plot("Validation over training", caption, figure.to_json())


def inverse_error(group: Group, looks: dict[str, Style]) -> Plot | None:
    figure, errors = Figure(layout=layout("error, float32", "share of test rows")), []
    for model, runs in group.runs.items():
        if line := error_shares(runs):
            errors += [float(line[0][0]), float(line[0][-1])]
            text = "%{y:.1%} of rows at most %{x:.1e}"
            add_line(figure, line, look(runs[0].title, model, looks[model]), text)
    if not figure.data:
        return None
    figure.update_xaxes(logarithmic(errors))
    caption = "The share of test rows whose inverse errs at most so much; left is better."
    return Plot("Error of the inverse", caption, figure.to_json())


def add_line(figure: Figure, line: Any, looks: dict[str, Any], text: str) -> None:
    """A line with a few markers, which tell it apart without colour."""
    x, y = line
    looks["marker"] |= {"maxdisplayed": MARKED, "size": 7}
    figure.add_trace(
        Scatter(
            x=[float(f"{value:.4g}") for value in x],
            y=[float(f"{value:.6g}") for value in y],
            mode="lines+markers",
            hovertemplate=NAME + text,
            **looks,
        )
    )


def look(name: str, model: str, style: Style) -> dict[str, Any]:
    """What a contender's traces share; `meta` is what the keys of the page go by."""
    return {
        "name": name,
        "meta": model,
        "marker": {
            "color": style.colour,
            "symbol": style.symbol,
            "size": 10,
            "line": {"color": style.colour, "width": 0 if style.filled else 2},
        },
        "line": {"color": style.colour, "dash": style.dash, "width": 2},
    }


def logarithmic(values: Sequence[float]) -> dict[str, Any]:
    """An axis in decades, with ticks between them where they are few."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    steps = (1, 2, 5) if high - low <= FEW_DECADES else (1,)
    ticks = [step * 10.0**decade for decade in range(low, high + 1) for step in steps]
    texts = [f"{tick:g}".replace("e-0", "e-").replace("e+0", "e") for tick in ticks]
    return {"type": "log", "tickvals": ticks, "ticktext": texts}


def layout(x: str, y: str) -> dict[str, Any]:
    axis = {
        "gridcolor": NEUTRAL,
        "linecolor": NEUTRAL,
        "zeroline": False,
        "automargin": True,
        "ticks": "outside",
        "ticklen": 4,
    }
    return {
        "template": "none",
        "xaxis": {"title": {"text": x, "standoff": 10}, **axis},
        "yaxis": {"title": {"text": y, "standoff": 8}, **axis},
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"family": "inherit", "size": 12},
        "margin": {"l": 8, "r": 12, "t": 8, "b": 8},
        "height": 300,
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": False,
        "hoverlabel": {"font": {"family": "inherit", "size": 12}},
    }
