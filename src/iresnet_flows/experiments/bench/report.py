"""A benchmark as a table in the terminal, in Markdown and as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from iresnet_flows.experiments.bench.rows import Row
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.storage import write_json, write_text

__all__ = ["LEGEND", "tally", "terminal_tables", "write_report"]

HEADS = ("measure", "case", "against", "ours is", "target", "theirs", "ours", "ratio", "verdict")
LEGEND = (
    "Targets are what must be reached / what is aimed for. ≥: the ratio is theirs over ours; ≤: "
    "ours over theirs, or ours alone where an error is bounded. Times are those of flows of two "
    "blocks, exact log-dets, bytes, bounds and errors of one. All numbers of a row are medians "
    "of one loop in which the contestants alternate, after a warm-up; quartiles of their ratio, "
    "round by round, stand in brackets in bench.md."
)


def terminal_tables(rows: Sequence[Row]) -> list[Table]:
    """A table for each measure; what must be known besides is in the file."""
    return [
        terminal_table(measure, [row for row in rows if row.measure == measure])
        for measure in dict.fromkeys(row.measure for row in rows)
    ]


def terminal_table(measure: str, rows: Sequence[Row]) -> Table:
    table = Table(
        title=measure,
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        collapse_padding=True,
    )
    for head in HEADS[1:]:
        right = head in {"theirs", "ours", "ratio"}
        table.add_column(head, justify="right" if right else "left", no_wrap=head != "case")
    last = ""
    for row in rows:
        _, case, *rest = cells(replace(row, note="", spread=None))
        table.add_row(case if case != last else "", *rest)
        last = case
    return table


def tally(rows: Sequence[Row]) -> str:
    """How many targets are met."""
    verdicts = Counter(row.verdict for row in rows if row.target is not None)
    return ", ".join(f"{name}: {count}" for name, count in sorted(verdicts.items()))


def write_report(folder: Path, record: dict[str, Any], rows: Sequence[Row]) -> None:
    """bench.json and bench.md, each whole or as it was before."""
    write_json(folder / "bench.json", {**record, "rows": [row.record() for row in rows]})

    parts = [
        markdown_table(HEADS, map(cells, rows)),
        LEGEND,
        *(f"* {note}" for note in record["notes"]),
    ]
    parts.append(f"`{record['command']}`")
    parts.append(", ".join(f"{name} {value}" for name, value in record["versions"].items()))
    how = (f"{name} {value:g}" for name, value in record["settings"].items())
    parts.append(f"Repeats: {', '.join(how)}.")
    counts = [[p["contestant"], p["net"], f"{p['parameters']:,}"] for p in record["parameters"]]
    parts.append(markdown_table(["contestant", "network", "parameters"], counts))
    if not record["finished"]:
        parts.append("This run was stopped before its end.")
    write_text(folder / "bench.md", "\n\n".join(parts) + "\n")


def cells(row: Row) -> list[str]:
    """What a line of the table says."""
    verdict = f"{row.verdict} ({row.note})" if row.note else row.verdict
    target = "" if row.target is None else str(row.target)
    numbers = [number(row.theirs), number(row.ours), number(row.figure)]
    if row.spread:
        numbers[-1] += f" ({number(row.spread[0])} - {number(row.spread[1])})"
    return [row.measure, row.case, row.against, row.contestant, target, *numbers, verdict]


def number(value: float | None) -> str:
    """Three digits, or four for what is near one."""
    if value is None or math.isnan(value):
        return "n/a"
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.4f}" if 0.9 < value < 1.1 else f"{value:,.3g}"
