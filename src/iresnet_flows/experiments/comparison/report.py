"""A comparison as files and as tables in the terminal, from its results alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison.figures import draw
from iresnet_flows.experiments.comparison.findings import findings, overall, remarks
from iresnet_flows.experiments.comparison.groups import Group, grouped
from iresnet_flows.experiments.comparison.labels import (
    MEASURES,
    PROBE_TITLES,
    TITLES,
    cell,
    differences,
    mark,
)
from iresnet_flows.experiments.comparison.page import write_page
from iresnet_flows.experiments.comparison.results import Result
from iresnet_flows.experiments.comparison.styles import Style, styles
from iresnet_flows.experiments.comparison.tidy import write_tables
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.storage import write_json, write_text

__all__ = ["record", "terminal_report", "write_reports"]

# What fits into eighty columns.
TERMINAL = {
    "nats": "nats",
    "bits_per_dim": "bits/dim",
    "inverse_error": "inverse",
    "step_ms": "step ms",
    "log_prob_ms": "log p ms",
    "sample_ms": "sample ms",
}
NAME_WIDTH = 12

Show = Callable[[dict[str, Any], str], str]


def write_reports(results: Sequence[Result], folder: Path, command: str) -> None:
    """Write ``report.html``, ``results.csv`` and ``results.parquet``, and for each group a table.

    A group is what has a data set, a budget and a match in common. Its ``table1.json``,
    ``table1.md`` and ``figures`` are in the folder where there is one group, and in a folder of
    its name within where there are several.

    Arguments:
        results: Those of the runs; no model is loaded.
        folder: Where to.
        command: What asked for the report.

    Raises:
        UsageError: There is no result.
    """
    if not results:
        raise UsageError("there are no results to report.")
    groups, looks = grouped(results), styles(results)
    for group in groups:
        write_group(folder if len(groups) == 1 else folder / group.name, group, looks, command)
    write_tables(folder, results)
    write_page(folder / "report.html", groups, looks, command)


def write_group(folder: Path, group: Group, looks: dict[str, Style], command: str) -> None:
    write_json(folder / "table1.json", record(group, command))
    write_text(folder / "table1.md", markdown(group, command))
    draw(folder / "figures", group, looks)


def record(group: Group, command: str) -> dict[str, Any]:
    """What ``table1.json`` holds."""
    return {
        "data": group.data.name,
        "seeds": group.seeds,
        "command": command,
        "settings": group.settings,
        "versions": group.versions[0],
        "machines": group.versions,
        "rows": group.rows,
        "standings": group.standings.record(),
    }


def markdown(group: Group, command: str) -> str:
    """What ``table1.md`` holds: properties and measures, then probes, then what to know."""
    heads = ["model", *TITLES.values(), *MEASURES.values()]
    table = [
        [row["title"], *(mark(row, name) for name in TITLES), *(cell(row, n) for n in MEASURES)]
        for row in group.rows
    ]
    probes = [[row["title"], *(cell(row, n) for n in PROBE_TITLES)] for row in group.rows]
    parts = [
        markdown_table(heads, table),
        f"`{command}`",
        *findings(group),
        *remarks([group]),
        *group.standings.warnings,
        *footnotes(group),
        markdown_table(["model", *PROBE_TITLES.values()], probes),
    ]
    return "\n\n".join(parts) + "\n"


def footnotes(group: Group) -> Iterator[str]:
    """What the numbers are, and why the marked ones are not the paper's."""
    seeds = len(group.seeds)
    kind = f"over {seeds} seeds" if seeds > 1 else "over the test rows, one seed"
    yield (
        f"Data: {group.data.name}; {group.terms}. Nats: test -log p of a row in the data's units, "
        f"lower is better, mean and standard error {kind}. Times are for 256 rows."
    )
    yield (
        "Properties are measured on the trained model; * marks where the paper's Table 1 says "
        "otherwise. The evidence is in table1.json."
    )
    yield from (f"\\* {sentence}" for sentence in differences(group.rows))


def terminal_report(results: Sequence[Result]) -> Iterator[Table | Text | str]:
    """The measures, the properties and the findings of each group, in eighty columns."""
    groups = grouped(results)
    for group in groups:
        yield Text.assemble((group.title, "bold"), f", {group.terms}")
        yield terminal_table(group.rows, TERMINAL, cell, "right")
        yield terminal_table(group.rows, TITLES, mark, "center")
        if any(True for _ in differences(group.rows)):
            yield "* the paper's Table 1 says otherwise"
        yield from findings(group)
        yield from group.standings.warnings
        yield ""
    yield from remarks(groups)
    yield from overall(groups)


def terminal_table(
    rows: Sequence[dict[str, Any]],
    heads: dict[str, str],
    show: Show,
    justify: Literal["right", "center"],
) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("model", no_wrap=True, overflow="ellipsis", max_width=NAME_WIDTH)
    for head in heads.values():
        longest = max(map(len, head.split()))
        table.add_column(head, justify=justify, min_width=longest, no_wrap=justify == "right")
    for row in rows:
        table.add_row(row["title"], *(show(row, name) for name in heads))
    return table
