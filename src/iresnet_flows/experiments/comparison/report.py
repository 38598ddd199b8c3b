"""A comparison as a table, in Markdown and in the terminal, and as a page."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader
from rich.box import SIMPLE
from rich.table import Table

from iresnet_flows.experiments.comparison.contenders import CONTENDERS, Contender
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.storage import write_text

__all__ = ["terminal_tables", "write_page", "write_table"]

PROPERTIES = {
    "free_form": "free-form",
    "analytic_forward": "analytic forward",
    "analytic_inverse": "analytic inverse",
    "non_volume_preserving": "non-volume preserving",
    "exact_likelihood": "exact likelihood",
    "unbiased_log_det": "unbiased log-det",
}

# Behrmann et al. 2019, Table 1, in the order of PROPERTIES; it does not list the others.
PAPER = {
    "nice": (False, True, True, False, True, None),
    "realnvp": (False, True, True, True, True, None),
    "glow": (False, True, False, True, True, None),
    "ffjord": (True, False, False, True, False, True),
    "i-resnet": (True, True, False, True, False, False),
}

CAPTIONS = {
    "samples": "Samples of each model beside test data.",
    "densities": "Learned densities, with the test nats of the first seed.",
    "curves": "Validation over training time.",
    "cost": "Test nats against what they cost; bars are standard errors.",
    "inverse_error": "Error of the inverse over the test rows.",
}

MEASURES = {
    "nats": "nats",
    "bits_per_dim": "bits/dim",
    "inverse_error": "inverse error",
    "parameters": "params",
    "train_seconds": "train s",
    "step_ms": "step ms",
    "log_prob_ms": "log-prob ms",
    "sample_ms": "sample ms",
    "peak_mb": "peak MB",
}


# What fits into eighty columns.
TERMINAL = {
    "nats": "nats",
    "bits_per_dim": "bits/dim",
    "inverse_error": "inverse",
    "step_ms": "step ms",
    "log_prob_ms": "log p ms",
    "sample_ms": "sample ms",
}


def write_table(path: Path, record: dict[str, Any]) -> None:
    """The table in Markdown, properties and measures, one line a model."""
    heads = ["model", *PROPERTIES.values(), *MEASURES.values()]
    rows = [
        [
            CONTENDERS[row["model"]].title,
            *(mark(row, name) for name in PROPERTIES),
            *(cell(row, name) for name in MEASURES),
        ]
        for row in record["rows"]
    ]
    text = markdown_table(heads, rows)
    notes = [f"`{record['command']}`", summary(record["lead"]), *footnotes(record)]
    write_text(path, f"{text}\n\n" + "\n\n".join(notes) + "\n")


def terminal_tables(rows: Sequence[dict[str, Any]]) -> list[Table]:
    """The measures and the properties, for a terminal."""
    return [
        terminal_table(rows, TERMINAL, cell, "right"),
        terminal_table(rows, PROPERTIES, mark, "center"),
    ]


def terminal_table(
    rows: Sequence[dict[str, Any]],
    heads: dict[str, str],
    show: Callable[[dict[str, Any], str], str],
    justify: Literal["right", "center"],
) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("model", no_wrap=True)
    for head in heads.values():
        table.add_column(head, justify=justify, no_wrap=justify == "right")
    for row in rows:
        table.add_row(CONTENDERS[row["model"]].title, *(show(row, name) for name in heads))
    return table


def write_page(
    path: Path,
    record: dict[str, Any],
    dataset: Dataset,
    contenders: Sequence[Contender],
    figures: Path,
) -> None:
    """One file, with its pictures inside, that needs no network."""
    pictures = [
        (caption, base64.b64encode((figures / f"{name}.png").read_bytes()).decode())
        for name, caption in CAPTIONS.items()
        if (figures / f"{name}.png").exists()
    ]
    environment = Environment(
        loader=PackageLoader("iresnet_flows.experiments.comparison"),
        autoescape=True,
        trim_blocks=True,
    )
    page = environment.get_template("report.html").render(
        record=record,
        dataset=dataset,
        contenders=contenders,
        titles={name: contender.title for name, contender in CONTENDERS.items()},
        properties=PROPERTIES,
        measures=MEASURES,
        mark=mark,
        cell=cell,
        summary=summary(record["lead"]),
        notes=footnotes(record),
        pictures=pictures,
    )
    write_text(path, page)


def summary(lead: dict[str, Any] | None) -> str:
    """Who leads, by how much, in words."""
    if lead is None:
        return "There are no two results to compare."
    best, second = (CONTENDERS[lead[key]].title for key in ("model", "over"))
    gap, error = lead["nats"], lead["standard_error"]
    ratio = f" ({gap / error:.1f} standard errors)" if error > 0 else ""
    return (
        f"{best} reaches the lowest test loss, {gap:.3f} ± {error:.3f} nats below {second} row by "
        f"row{ratio}."
    )


def footnotes(record: dict[str, Any]) -> list[str]:
    seeds = len(record["seeds"])
    kind = (
        f"mean and standard error over {seeds} seeds"
        if seeds > 1
        else "standard error over the test rows, one seed"
    )
    units = (
        f"Data: {record['data']}. Nats: test -log p of a row in the data's units, lower is "
        f"better, {kind}. Times are for 256 rows."
    )
    origin = (
        "Properties are measured on the trained model; * marks where the paper's Table 1 says "
        "otherwise. The evidence is in table1.json."
    )
    notes = [units, origin]
    for row in record["rows"]:
        notes += [f"{CONTENDERS[row['model']].title}, {reason}." for reason in row["failed"]]
    return notes


def mark(row: dict[str, Any], name: str) -> str:
    """yes, no or n/a, with an asterisk where the paper says otherwise."""
    value = row[name]
    word = "n/a" if value is None else "yes" if value else "no"
    claims = dict(zip(PROPERTIES, PAPER.get(row["model"], ()), strict=False))
    measured = any(row[key] is not None for key in PROPERTIES)
    return f"{word}*" if measured and name in claims and claims[name] != value else word


def cell(row: dict[str, Any], name: str) -> str:
    value = row[name]
    if value is None or math.isnan(value):
        return "failed" if row["failed"] else "none"
    if name == "nats":
        return f"{value:.3f}±{row['nats_standard_error']:.3f}"
    if name == "inverse_error":
        return f"{value:.1e}"
    if name == "parameters":
        return f"{value:,}"
    return f"{value:.3f}" if name == "bits_per_dim" else f"{value:.3g}"
