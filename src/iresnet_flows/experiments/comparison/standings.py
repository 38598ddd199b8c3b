"""Who is first on a data set, and which of the others are behind by more than chance."""

from __future__ import annotations

import statistics as means
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
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
        p: The p value of no difference, after Holm over all contenders of the data set.
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
class Standings:
    """The order of the contenders on one data set.

    Arguments:
        model: The first, or None where none has a density; `standings` says which it is.
        title: What tables call it.
        gaps: The others that can be compared with it, from the lowest up.
        warnings: What a reader must know before believing them.
    """

    model: str | None
    title: str | None
    gaps: tuple[Gap, ...]
    warnings: tuple[str, ...]

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
        return {"first": self.model, "others": gaps, "warnings": list(self.warnings)}


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
    others = [model for model in order if model != first]
    paired: dict[str, Difference] = {}
    for model in others:
        found = pair(scored[model], scored[first])
        if isinstance(found, str):
            warnings.append(found)
        else:
            paired[model] = found

    seeds = {scored[model][0].title: gap.seeds for model, gap in paired.items()}
    warnings += few_seeds(seeds or {scored[first][0].title: len(scored[first])})
    adjusted = holm([gap.p for gap in paired.values()])
    gaps = [
        Gap(model, scored[model][0].title, gap, p)
        for (model, gap), p in zip(paired.items(), adjusted, strict=True)
    ]
    gaps.sort(key=lambda gap: gap.difference.mean)
    for gap in gaps:
        if gap.ahead:
            failed = len(scored[gap.model]) < len(runs_of[gap.model])
            but = "some of its runs failed" if failed else "the mean of all of its own is higher"
            warnings.append(
                f"{gap.title} is ahead of {scored[first][0].title} on the seeds that both have, "
                f"but {but}."
            )
    return Standings(first, scored[first][0].title, tuple(gaps), tuple(warnings))


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
    devices = sorted({run.plan.device for run in results})
    if len(devices) > 1:
        yield f"The runs are of {' and '.join(devices)}: their times do not compare."
    if len({run.plan.fingerprint for run in results}) > 1:
        yield "The runs are of data that have changed in between: their nats do not compare."
