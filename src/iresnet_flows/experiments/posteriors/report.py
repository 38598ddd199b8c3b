"""A study of posteriors as tables, and what they come to in words."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from iresnet_flows.experiments.averages import mean, standard_error
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.posteriors.measures import Estimate
from iresnet_flows.experiments.posteriors.runs import TITLES, Outcome
from iresnet_flows.experiments.posteriors.targets import TARGETS
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.terminal import titled_table
from iresnet_flows.experiments.versions import versions

__all__ = ["terminal_report", "write_report"]

OURS = "i-resnet"
STUDIES = {"guides": "Pyro guides", "npe": "sbi's NPE"}
MEASURES = {
    "c2st": "C2ST accuracy, 0.5 is best",
    "efficiency": "importance-sampling efficiency, 1 is best",
    "elbo": "ELBO in nats, higher is better",
    "steps": "optimiser steps of guides, epochs of estimators",
    "seconds": "seconds of training",
    "parameters": "parameters",
}
LARGE = 1e4
PACKAGES = ("pyro-ppl", "sbi", "scikit-learn", "numpy")


def write_report(
    folder: Path, outcomes: Sequence[Outcome], settings: dict[str, Any], command: str
) -> None:
    """``posteriors.json`` and ``posteriors.md``."""
    rows = summaries(outcomes)
    findings = verdict(rows)
    record = {
        "command": command,
        "settings": settings,
        "versions": versions(PACKAGES),
        "verdict": findings,
        "rows": rows,
        "runs": [asdict(outcome) for outcome in outcomes],
    }
    write_json(folder / "posteriors.json", record)

    parts = [f"`{command}`", *findings]
    for study, measure, heads, cells in tables(rows):
        parts += [f"**{STUDIES[study]}: {MEASURES[measure]}**", markdown_table(heads, cells)]
    parts += [f"{label(outcome)}: {outcome.error}." for outcome in outcomes if outcome.error]
    write_text(folder / "posteriors.md", "\n\n".join(parts) + "\n")


def terminal_report(outcomes: Sequence[Outcome]) -> Iterable[Table | str]:
    """C2ST, efficiency and the verdict, for a terminal."""
    rows = summaries(outcomes)
    for study, measure, heads, cells in tables(rows):
        if measure in ("c2st", "efficiency"):
            yield titled_table(f"{STUDIES[study]}: {MEASURES[measure]}", heads, cells)
    yield from verdict(rows)


def summaries(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """A row for each study, target and method: means over the seeds and their errors."""
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.study, outcome.target, outcome.method), []).append(outcome)
    return [
        {
            "study": study,
            "target": target,
            "method": method,
            "seeds": sorted(o.seed for o in group if o.error is None),
            "failed": sorted(o.seed for o in group if o.error is not None),
            **{name: pooled(group, name) for name in ("c2st", "efficiency", "elbo")},
            **{
                name: mean(getattr(o, name) for o in group if o.error is None)
                for name in ("steps", "seconds", "parameters")
            },
        }
        for (study, target, method), group in sorted(groups.items(), key=order)
    ]


def order(item: tuple[tuple[str, str, str], Any]) -> tuple[int, ...]:
    (study, target, method), _ = item
    return (
        list(STUDIES).index(study),
        TARGETS.index(target),
        list(TITLES[study]).index(method),
    )


def pooled(group: Sequence[Outcome], name: str) -> dict[str, float] | None:
    """The mean over the seeds, with its standard error over them, or within a single one."""
    found: list[Estimate] = [getattr(o, name) for o in group if o.error is None]
    if not found:
        return None
    values = [estimate.value for estimate in found]
    error = standard_error(values)
    if error is None:
        error = found[0].standard_error
    return {"value": statistics.fmean(values), "standard_error": error}


def tables(
    rows: Sequence[dict[str, Any]],
) -> Iterable[tuple[str, str, list[str], list[list[str]]]]:
    """For each study and measure the heads and cells: a line a method, a column a target."""
    for study in STUDIES:
        found = {(r["target"], r["method"]): r for r in rows if r["study"] == study}
        targets = [name for name in TARGETS if any(name == target for target, _ in found)]
        methods = [name for name in TITLES[study] if any(name == method for _, method in found)]
        for measure in MEASURES if found else ():
            heads = ["", *(name.replace("_", " ") for name in targets)]
            cells = [
                [TITLES[study][method], *(cell(found, t, method, measure) for t in targets)]
                for method in methods
            ]
            yield study, measure, heads, cells


def cell(found: dict[tuple[str, str], dict[str, Any]], target: str, method: str, name: str) -> str:
    row = found.get((target, method))
    if row is None:
        return ""
    value = row[name]
    if value is None:
        return "failed"
    if not isinstance(value, dict):
        return f"{value:,.0f}"
    lost = f" ({len(row['failed'])} failed)" if row["failed"] else ""
    number, error = value["value"], value["standard_error"]
    if abs(number) >= LARGE:
        return f"{number:.1e}±{error:.0e}{lost}"
    digits = 2 if name == "elbo" else 3
    return f"{number:.{digits}f}±{error:.{digits}f}{lost}"


def verdict(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Where i-ResNet is best, or within two standard errors of the best."""
    lines = []
    for study, title in STUDIES.items():
        groups: dict[str, dict[str, dict[str, Any]]] = {}
        for row in rows:
            if row["study"] == study and row["c2st"] is not None:
                groups.setdefault(row["target"], {})[row["method"]] = row
        groups = {t: g for t, g in groups.items() if OURS in g and len(g) > 1}
        if not groups:
            continue
        ahead = [t for t, g in groups.items() if leads(g)]
        lines.append(
            f"{title}: i-ResNet has the best C2ST, or one within two standard errors of the best, "
            f"on {len(ahead)} of {len(groups)} targets ({', '.join(ahead) or 'none'})."
        )
        rivals = [name for name in ("coupling", "iaf") if study == "guides"]
        above = [t for t, g in groups.items() if rivals and more_efficient(g, rivals)]
        if rivals:
            lines.append(
                f"{title}: its importance-sampling efficiency is above those of affine coupling "
                f"and IAF on {len(above)} of {len(groups)} ({', '.join(above) or 'none'})."
            )
    return lines


def leads(group: dict[str, dict[str, Any]]) -> bool:
    ours = group[OURS]["c2st"]
    best = min((row["c2st"] for row in group.values()), key=lambda c: c["value"])
    error = math.hypot(ours["standard_error"], best["standard_error"])
    return bool(ours["value"] - best["value"] <= 2 * error)


def more_efficient(group: dict[str, dict[str, Any]], rivals: Sequence[str]) -> bool:
    ours = group[OURS]["efficiency"]["value"]
    return all(group[r]["efficiency"]["value"] < ours for r in rivals if r in group)


def label(outcome: Outcome) -> str:
    title = TITLES[outcome.study][outcome.method]
    return f"{title} on {outcome.target}, seed {outcome.seed}"
