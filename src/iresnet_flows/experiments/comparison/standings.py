"""Who is first on a data set, and which of the others are behind by more than chance."""

from __future__ import annotations

import statistics as means
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from iresnet_flows.experiments.comparison.results import Result
from iresnet_flows.experiments.comparison.rows import by_model, good
from iresnet_flows.experiments.comparison.statistics import FEW, Difference, difference, holm

__all__ = ["Gap", "Standings", "standings"]

TIED = 2.0
LEVEL = 0.05


@dataclass(frozen=True)
class Gap:
    """How far a contender is behind the first, paired by seed and test row.

    Arguments:
        model: The contender's name.
        title: What tables call it.
        difference: Its mean -log p less that of the first.
        p: The p value of no difference, after Holm over all pairs of contenders: the
            first is chosen by the same rows, and its lead over the last is the largest of all.
    """

    model: str
    title: str
    difference: Difference
    p: float

    @property
    def tied(self) -> bool:
        """Whether it is within two standard errors of the first."""
        return abs(self.difference.sigmas) <= TIED

    @property
    def ahead(self) -> bool:
        """Whether it is below the first by more than two standard errors."""
        return self.difference.sigmas < -TIED

    @property
    def behind(self) -> bool:
        """Whether it is above the first by more than two standard errors."""
        return self.difference.sigmas > TIED

    @property
    def certain(self) -> bool:
        """Whether it is behind by more than chance, after Holm at 5 %."""
        return self.behind and self.p < LEVEL


@dataclass(frozen=True)
class Pair:
    """Two contenders beside each other.

    Arguments:
        below: The name of the one with the lower mean over its seeds.
        above: That of the other.
        difference: The mean -log p of the latter less that of the former.
        p: The p value of no difference, after Holm over all pairs.
    """

    below: str
    above: str
    difference: Difference
    p: float


@dataclass(frozen=True)
class Standings:
    """The order of the contenders on one data set.

    Arguments:
        model: The first, or None where none has a density; `standings` says which it is.
        title: What tables call it.
        gaps: The others that can be compared with it, from the lowest up.
        warnings: What a reader must know before believing them.
        pairs: Every two contenders that can be compared.
    """

    model: str | None
    title: str | None
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()

    def gap(self, model: str) -> Gap | None:
        """That of a contender."""
        return next((gap for gap in self.gaps if gap.model == model), None)

    def record(self) -> dict[str, Any]:
        """As JSON."""
        gaps = [
            {
                "model": gap.model,
                **asdict(gap.difference),
                "sigmas": gap.difference.sigmas,
                "p": gap.difference.p,
                "p_holm": gap.p,
                "tied": gap.tied,
                "ahead": gap.ahead,
            }
            for gap in self.gaps
        ]
        pairs = [
            {
                "below": pair.below,
                "above": pair.above,
                **asdict(pair.difference),
                "p": pair.difference.p,
                "p_holm": pair.p,
            }
            for pair in self.pairs
        ]
        warnings = list(self.warnings)
        return {"first": self.model, "others": gaps, "pairs": pairs, "warnings": warnings}


def standings(results: Sequence[Result]) -> Standings:
    """The order on one data set with one budget.

    The first is the contender with the lowest mean nats among those none of whose runs failed, or
    among all where each has one that did, for what survives may be the easy seeds. The others are
    compared with it over the seeds that both have, on the same test rows; what shares none is
    left out, with a warning.
    """
    runs_of = by_model(results)
    scored = {
        model: whole
        for model, runs in runs_of.items()
        if (whole := [run for run in good(runs) if run.nats is not None])
    }
    warnings = list(cautions(results))
    if not scored:
        return Standings(None, None, (), tuple(warnings))

    unfailed = [model for model in scored if len(scored[model]) == len(runs_of[model])]
    order = sorted(scored, key=lambda model: means.fmean(run.nats or 0 for run in scored[model]))
    first = next(model for model in order if model in (unfailed or order))
    paired: dict[tuple[str, str], Difference] = {}
    for below, above in combinations(order, 2):
        found = pair(scored[above], scored[below])
        if isinstance(found, Difference):
            paired[below, above] = found
        elif first in (below, above):
            warnings.append(found)
    adjusted = holm([found.p for found in paired.values()])
    pairs = tuple(Pair(*key, paired[key], p) for key, p in zip(paired, adjusted, strict=True))

    gaps = [gap_to(first, each, scored) for each in pairs if first in (each.below, each.above)]
    seeds = {gap.title: gap.difference.seeds for gap in gaps}
    warnings += few_seeds(seeds or {scored[first][0].title: len(scored[first])})
    gaps.sort(key=lambda gap: gap.difference.mean)
    for gap in gaps:
        if gap.ahead:
            failed = len(scored[gap.model]) < len(runs_of[gap.model])
            but = "some of its runs failed" if failed else "the mean of all of its own is higher"
            warnings.append(
                f"{gap.title} is ahead of {scored[first][0].title} on the seeds that both have, "
                f"but {but}."
            )
    return Standings(first, scored[first][0].title, tuple(gaps), tuple(warnings), pairs)


def gap_to(first: str, pair: Pair, scored: Mapping[str, Sequence[Result]]) -> Gap:
    """How far the other one of a pair is behind the first of all."""
    other, found = pair.above, pair.difference
    if other == first:  # those below it have runs that failed
        other, found = pair.below, replace(found, mean=-found.mean)
    return Gap(other, scored[other][0].title, found, pair.p)


def pair(these: Sequence[Result], those: Sequence[Result]) -> Difference | str:
    """How far these runs are above those, or why that cannot be told."""
    titles = f"{these[0].title} and {those[0].title}"
    ours = {run.plan.seed: run for run in these}
    theirs = {run.plan.seed: run for run in those}
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return f"{titles} share no seed: their difference is left out."
    if not all(same_rows(ours[seed], theirs[seed]) for seed in common):
        return f"{titles} were not tested on the same rows: their difference is left out."
    return difference(
        [ours[seed].arrays["rows"] for seed in common],
        [theirs[seed].arrays["rows"] for seed in common],
    )


def few_seeds(seeds: dict[str, int]) -> Iterator[str]:
    few = [title for title, count in seeds.items() if count < FEW]
    if few:
        whose = "" if len(few) == len(seeds) else f" of {', '.join(few)}"
        most = max(seeds[title] for title in few)
        yield (
            f"{most} {'seed' if most == 1 else 'seeds'}{whose}: with fewer than {FEW} a standard "
            "error says little of what another seed would do."
        )


def same_rows(this: Result, that: Result) -> bool:
    shapes = [run.arrays["rows"].shape for run in (this, that) if "rows" in run.arrays]
    same = this.plan.fingerprint == that.plan.fingerprint
    return same and len(shapes) == 2 and shapes[0] == shapes[1] != (0,)


def cautions(results: Sequence[Result]) -> Iterator[str]:
    """What spoils a comparison from the start."""
    kept = {id(run) for runs in by_model(results).values() for run in runs}
    for run in results:
        if id(run) not in kept:
            yield f"{run.title}, seed {run.plan.seed}: of several runs the first counts."
    for runs in by_model(results).values():
        if len({run.plan.recipe for run in runs}) > 1:
            yield f"{runs[0].title}: its runs are of several recipes or versions of this package."
    devices = sorted({run.plan.device for run in results})
    if len(devices) > 1:
        yield f"The runs are of {' and '.join(devices)}: their times do not compare."
    if len({run.plan.fingerprint for run in results}) > 1:
        yield "The runs are of data that have changed in between: their nats do not compare."
