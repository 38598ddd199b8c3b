"""Results by data set, budget and what is made equal: only within a group do numbers compare."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from iresnet_flows.experiments.comparison.results import Data, Result
from iresnet_flows.experiments.comparison.rows import by_model, rows
from iresnet_flows.experiments.comparison.standings import Standings, standings

__all__ = ["Group", "grouped"]

MATCHES = {
    "parameters": "equal parameters",
    "time": "equal time of a step",
    "none": "nothing made equal",
}


@dataclass(frozen=True)
class Group:
    """The results on one data set, with one budget and match.

    Arguments:
        name: That of its folder, another one for each group of a report.
        title: What a page calls it.
        results: Its results, at least one.
    """

    name: str
    title: str
    results: tuple[Result, ...]

    @property
    def data(self) -> Data:
        """What a report says of the data set."""
        return self.results[0].data

    @property
    def terms(self) -> str:
        """The budget, with the rows where it has cut them, and the match, in words."""
        plan = self.results[0].plan
        budget = plan.budget if self.data.train == plan.rows else plan.length
        return f"{budget} each, {MATCHES.get(plan.match, plan.match)}"

    @cached_property
    def runs(self) -> dict[str, list[Result]]:
        """Those of each contender, one a seed."""
        return by_model(self.results)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The table, a row a contender."""
        return rows(self.results)

    @cached_property
    def standings(self) -> Standings:
        """The order of the contenders."""
        return standings(self.results)

    @property
    def seeds(self) -> list[int]:
        """All seeds of its runs."""
        return sorted({run.plan.seed for run in self.results})

    @property
    def settings(self) -> dict[str, Any]:
        """What its runs have in common."""
        plan = self.results[0].plan
        return {
            "data": self.data.name,
            "models": list(self.runs),
            "seeds": self.seeds,
            "steps": plan.steps,
            "minutes": plan.minutes,
            "match": plan.match,
            "devices": sorted({run.plan.device for run in self.results}),
        }

    @property
    def versions(self) -> list[dict[str, str]]:
        """What its runs were made with, each setting of versions and machine once."""
        found: list[dict[str, str]] = []
        for run in self.results:
            if run.versions not in found:
                found.append(run.versions)
        return found


def grouped(results: Sequence[Result]) -> list[Group]:
    """The groups, as each first appears.

    Their names say the data set, and the budget and the match where these differ too.
    """
    named = titles(results)
    parts: dict[tuple[str, str, str], list[Result]] = {}
    for result, data in zip(results, named, strict=True):
        parts.setdefault((data, result.plan.budget, result.plan.match), []).append(result)

    varies = [len({key[i] for key in parts}) > 1 for i in range(3)]
    groups: dict[str, Group] = {}
    for (data, budget, match), members in parts.items():
        words = [budget] * varies[1] + [MATCHES.get(match, match)] * varies[2]
        title = f"{data} ({', '.join(words)})" if words else data
        stem = re.sub(r"[^\w.]+", "-", title.replace(",", "")).strip("-.") or "data"
        name, count = stem, 1
        while name in groups:
            count += 1
            name = f"{stem}-{count}"
        groups[name] = Group(name, title, tuple(members))
    return list(groups.values())


def titles(results: Sequence[Result]) -> list[str]:
    """What each result's data set is called: its name, or its path where files share a name.

    Two files are the same data where their rows or their paths are: a file may have changed, and
    it may lie elsewhere on another machine.
    """
    sets: dict[str, list[tuple[set[str], set[str]]]] = {}
    for result in results:
        plan, known = result.plan, sets.setdefault(result.data.name, [])
        same = [s for s in known if plan.data in s[0] or plan.fingerprint in s[1]]
        paths = {plan.data}.union(*(s[0] for s in same))
        prints = {plan.fingerprint}.union(*(s[1] for s in same))
        known[:] = [*(s for s in known if s not in same), (paths, prints)]
    return [title(result, sets[result.data.name]) for result in results]


def title(result: Result, known: Sequence[tuple[set[str], set[str]]]) -> str:
    if len(known) == 1:
        return result.data.name
    return next(min(paths) for paths, _ in known if result.plan.data in paths)
