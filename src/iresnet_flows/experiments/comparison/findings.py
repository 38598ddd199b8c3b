"""What a comparison comes to, in words drawn from its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from iresnet_flows.experiments.comparison.groups import Group
from iresnet_flows.experiments.comparison.labels import probability
from iresnet_flows.experiments.comparison.standings import Gap

__all__ = ["findings", "listed", "overall", "remarks", "told"]

OURS = "i-resnet"
SLOWER = 1.5


def overall(groups: Sequence[Group]) -> list[str]:
    """Who is first on how many data sets, and how ours fares; nothing of a single one.

    Where a contender is alone it is not compared.
    """
    ranked = [g for g in groups if g.standings.model is not None and len(g.rows) > 1]
    if len(groups) < 2 or not ranked:
        return []
    wins: dict[str, int] = {}
    for group in ranked:
        title = group.standings.title or ""
        wins[title] = wins.get(title, 0) + 1
    tally = [f"{title} on {count}" for title, count in sorted(wins.items(), key=lambda w: -w[1])]
    told = [f"Of {len(ranked)} comparisons the first is {listed(tally)}."]

    won = [group.title for group in ranked if group.standings.model == OURS]
    gaps = [(group.title, gap) for group in ranked if (gap := group.standings.gap(OURS))]
    tied = [title for title, gap in gaps if gap.tied]
    lost = [title for title, gap in gaps if gap.behind]
    ahead = [title for title, gap in gaps if gap.ahead]
    if won or gaps:
        parts = [("comes first on", won), ("is tied with the first on", tied), ("loses on", lost)]
        parts.append(("is ahead, though not in all of its runs, on", ahead))
        told.append(
            "i-ResNet " + listed([f"{verb} {listed(on)}" for verb, on in parts if on]) + "."
        )
    return told


def findings(group: Group) -> list[str]:
    """Who is first on a data set, who is tied, where ours loses, and what failed."""
    return [*order(group), *ours(group), *filter(None, map(failure, group.rows))]


def remarks(groups: Sequence[Group]) -> Iterator[str]:
    """What a reader must know of the numbers of a contender, each once."""
    said: dict[str, list[str]] = {}
    for group in groups:
        for row in group.rows:
            if row["remark"]:
                sentence = f"{row['title']}: {row['remark'].rstrip('.')}"
                said.setdefault(sentence, []).append(group.title)
    for sentence, on in said.items():
        yield f"{sentence}." if len(on) == len(groups) else f"{sentence} (on {listed(on)})."


def order(group: Group) -> Iterator[str]:
    standings = group.standings
    if standings.model is None:
        yield "No contender has a test loss to compare."
        return
    first = next(row for row in group.rows if row["model"] == standings.model)
    if len(group.rows) == 1:
        yield f"{standings.title} comes to a mean test loss of {first['nats']:.3f} nats."
        return
    lowest = all(row["nats"] is None or row["nats"] >= first["nats"] for row in group.rows)
    reaches = "reaches the lowest" if lowest else "comes first with a"
    yield f"{standings.title} {reaches} mean test loss, {first['nats']:.3f} nats."

    tied = [gap.title for gap in standings.gaps if gap.tied]
    behind = [gap for gap in standings.gaps if gap.behind]
    unsure = [gap.title for gap in behind if not gap.certain]
    if tied:
        verb = "is" if len(tied) == 1 else "are"
        yield f"{listed(tied)} {verb} tied with it, within 2 standard errors."
    if behind:
        nearest = behind[0]
        yield f"It is ahead of {nearest.title}, the nearest not tied, by {told(nearest)}."
    if unsure:
        yield f"After Holm, chance may still account for its lead over {listed(unsure)}."


def ours(group: Group) -> Iterator[str]:
    """Where this package's own flow loses."""
    gap = group.standings.gap(OURS)
    if gap is not None and gap.behind:
        place = [g.model for g in group.standings.gaps].index(OURS) + 2
        yield (
            f"{gap.title} loses here: it is {told(gap)} behind {group.standings.title}, place "
            f"{place} of {len(group.standings.gaps) + 1}."
        )
    row = next((row for row in group.rows if row["model"] == OURS), None)
    for name, what in (("sample_ms", "Sampling"), ("log_prob_ms", "A log-likelihood")):
        timed = [other for other in group.rows if other[name] and other["nats"] is not None]
        if row is None or row not in timed:
            continue
        fastest = min(timed, key=lambda other: other[name])
        ratio = row[name] / fastest[name]
        if ratio > SLOWER:
            yield (
                f"{what} takes {row['title']} {ratio:,.3g} times as long as {fastest['title']}, "
                "the fastest."
            )


def told(gap: Gap) -> str:
    """A difference with its error, in nats and in standard errors, and its p value."""
    d = gap.difference
    size = f"{d.mean:.3f} ± {d.standard_error:.3f} nats"
    if d.standard_error == 0:
        return size
    return f"{size} ({d.sigmas:.1f} standard errors, {probability(gap.p)} after Holm)"


def failure(row: dict[str, Any]) -> str | None:
    """A sentence on a contender of which runs failed."""
    if not row["failed"]:
        return None
    seeds: dict[str, list[str]] = {}
    for failed in row["failed"]:
        seed, reason = failed.split(": ", 1)
        seeds.setdefault(reason.rstrip("."), []).append(seed.removeprefix("seed "))
    reasons = "; ".join(
        f"seed{'s' * (len(of) > 1)} {listed(of)}: {reason}" for reason, of in seeds.items()
    )
    return f"{row['title']} failed in {row['nan_runs']} of {row['runs']} runs ({reasons})."


def listed(words: Sequence[str]) -> str:
    """Words as a sentence lists them.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
