"""Results side by side, and the targets that they are judged by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = ["AtMost", "Point", "Row", "ShareOf", "Target", "TimesBetter"]


@dataclass(frozen=True)
class Target(ABC):
    """A number that must be reached, and one that is aimed for.

    Arguments:
        must: The number without which the result is missed.
        aim: The better one.
    """

    must: float
    aim: float

    sign: ClassVar[str]

    @abstractmethod
    def figure(self, theirs: float, ours: float) -> float:
        """The number that is judged."""

    @abstractmethod
    def met(self, figure: float, level: float) -> bool: ...

    def verdict(self, figure: float) -> str:
        """``met aim``, ``met must`` or ``missed``; what is not a number is missed."""
        if self.met(figure, self.aim):
            return "met aim"
        return "met must" if self.met(figure, self.must) else "missed"

    def __str__(self) -> str:
        return f"{self.sign} {self.must:g} / {self.aim:g}"


class TimesBetter(Target):
    """Theirs over ours, at least so much."""

    sign = "≥"

    def figure(self, theirs: float, ours: float) -> float:
        return quotient(theirs, ours)

    def met(self, figure: float, level: float) -> bool:
        return figure >= level


class ShareOf(Target):
    """Ours over theirs, at most so much."""

    sign = "≤"

    def figure(self, theirs: float, ours: float) -> float:
        return quotient(ours, theirs)

    def met(self, figure: float, level: float) -> bool:
        return figure <= level


class AtMost(ShareOf):
    """Ours alone, at most so much."""

    def figure(self, theirs: float, ours: float) -> float:
        return ours


@dataclass(frozen=True)
class Row:
    """A measurement of two contestants in the same loop.

    Arguments:
        measure: What was measured, with its unit.
        case: Of which network, data and batch.
        against: Whose number stands beside ours.
        contestant: Which of our variants.
        theirs: Their number, or None where there is none.
        ours: Ours.
        target: What is asked of the two, or None for a number to look at.
        rounds: How often each was measured.
        note: What a reader must know besides.
        spread: The quartiles of theirs over ours, round by round.
    """

    measure: str
    case: str
    against: str
    contestant: str
    theirs: float | None
    ours: float | None
    target: Target | None = None
    rounds: int = 1
    note: str = ""
    spread: tuple[float, float] | None = None

    @property
    def figure(self) -> float | None:
        """The number that the target judges; theirs over ours where there is none."""
        if self.ours is None:
            return None
        if isinstance(self.target, AtMost):
            return self.ours
        if self.theirs is None:
            return None
        if self.target is None:
            return quotient(self.theirs, self.ours)
        return self.target.figure(self.theirs, self.ours)

    @property
    def verdict(self) -> str:
        if self.target is None:
            return "-"
        return "no result" if self.figure is None else self.target.verdict(self.figure)

    def record(self) -> dict[str, Any]:
        """All of it, for a file."""
        target = self.target
        return {
            "measure": self.measure,
            "case": self.case,
            "against": self.against,
            "contestant": self.contestant,
            "theirs": self.theirs,
            "ours": self.ours,
            "must": target and target.must,
            "aim": target and target.aim,
            "target": None if target is None else str(target),
            "ratio": self.figure,
            "verdict": self.verdict,
            "rounds": self.rounds,
            "note": self.note,
            "spread": self.spread,
        }


@dataclass(frozen=True)
class Point:
    """The time of one contestant at one size.

    Arguments:
        sweep: The size that varies: ``features``, ``width``, ``depth`` or ``batch``.
        size: Its value.
        measure: ``training step``, ``log_prob`` or ``sampling``.
        contestant: Whose time.
        milliseconds: The median, or None where it failed or was left out as too slow.
    """

    sweep: str
    size: int
    measure: str
    contestant: str
    milliseconds: float | None


def quotient(a: float, b: float) -> float:
    """a / b, where nothing over nothing is one."""
    if b:
        return a / b
    return 1.0 if a == 0 else float("inf")
