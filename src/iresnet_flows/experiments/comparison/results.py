"""What a training came to, and the folder that keeps it: all that a report needs, and no model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.data.tables import Array
from iresnet_flows.experiments.storage import read_json, reading, write, write_json
from iresnet_flows.experiments.tensors import load_arrays

__all__ = ["PROBES", "PROPERTIES", "Data", "Match", "Plan", "Result", "found"]

Match: TypeAlias = Literal["parameters", "time", "none"]
RESULT = "result.json"
ARRAYS = "arrays.npz"
SIDES = {64: 8, 784: 28}

PROPERTIES = (
    "free_form",
    "analytic_forward",
    "analytic_inverse",
    "non_volume_preserving",
    "exact_likelihood",
    "unbiased_log_det",
)
"""The six of the paper's Table 1, in its order."""

PROBES = (
    "inverse_error",
    "inverse_error_64",
    "inverse_gradient_error",
    "weighted_gradient_error",
    "log_prob_noise",
    "lipschitz_bound",
    "log_prob_evaluations",
    "sample_evaluations",
    "takes_context",
)
"""Beyond it. Errors of the inverse are the largest over test rows, in model space, with float32
and with float64; those of gradients, through the inverse and of a loss that weighs its rows
unequally, are relative to the dense truth; the noise of log-prob is its standard deviation
over calls, in nats; the bound is the certified one of the flow's residual branches, the
largest; evaluations are uses of every parameter once for 256 rows; a context is what the recipe's
density can be given. None where one does not apply or fails."""


@dataclass(frozen=True)
class Plan:
    """What a run is made of; two runs of the same plan are the same run.

    Arguments:
        data: The data set, as the user named it.
        fingerprint: That of its rows, so that a file that has changed is other data.
        model: The contender: its name, or ``package.module:factory``.
        seed: That of the weights, the order and the noise.
        steps: The budget in optimiser steps, or None.
        minutes: The budget in minutes, or None.
        rows: The number of training rows, the first ones, or None for all.
        match: What is made equal between contenders: ``parameters``, ``time`` or ``none``.
        device: Lightning's accelerator.
        recipe: A digest of the contender: its width, rates and code.
    """

    data: str
    fingerprint: str
    model: str
    seed: int
    steps: int | None = None
    minutes: float | None = None
    rows: int | None = None
    match: Match = "parameters"
    device: str = "cpu"
    recipe: str = ""

    @property
    def slug(self) -> str:
        """The name of its folder: readable, and another one for each plan."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        words = re.sub(r"[^\w.-]+", "-", f"{Path(self.data).stem}-{self.model}-seed{self.seed}")
        return f"{words}-{digest[:8]}"

    @property
    def length(self) -> str:
        """How long it is trained, in words."""
        return f"{self.steps:,} steps" if self.steps is not None else f"{self.minutes:g} min"

    @property
    def budget(self) -> str:
        """That, and the rows that it is trained on at most."""
        return self.length if self.rows is None else f"{self.length} on {self.rows:,} rows"


@dataclass(frozen=True)
class Data:
    """What a report says of a data set.

    Arguments:
        name: Its name.
        columns: The names of its d columns.
        train: The number of training rows.
        validation: That of validation rows.
        test: That of test rows.
        discrete: Whether there are columns of whole numbers, to be dequantised.
        low: The least of each column in the training rows, of the first two columns only.
        high: The largest, likewise.
    """

    name: str
    columns: tuple[str, ...]
    train: int
    validation: int
    test: int
    discrete: bool
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def features(self) -> int:
        """The number d of columns."""
        return len(self.columns)

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, bottom and top of pictures of two columns: a tenth beyond the range."""
        (left, bottom), (right, top) = self.low, self.high
        x, y = (right - left) / 10, (top - bottom) / 10
        return left - x, right + x, bottom - y, top + y

    @property
    def side(self) -> int | None:
        """The side of the square pictures that rows of so many columns are taken for."""
        return SIDES.get(self.features)


@dataclass
class Result:
    """A trained contender, tested once and measured; nats are in the data's own units.

    Arguments:
        plan: What the run is made of.
        data: What it was trained on.
        title: What tables call the contender.
        recipe: The contender in a sentence.
        origin: ``paper``, ``beyond`` (it) or ``yours``.
        command: The command that asked for it.
        versions: What it was made with.
        error: Why there is no result, or None.
        mendable: Whether that was an exception of some code, and not a loss that is no number.
        remark: What a reader must know of its numbers, or None.
        width: The contender's free width, or None where it has none.
        parameters: The trainable parameters.
        steps: The optimiser steps taken.
        train_seconds: The time they took, validation and checkpoints apart; the processor's on
            a CPU.
        curve: (step, seconds, validation nats) at each validation.
        nats: The mean of -log p over the test rows; None without a density.
        row_standard_error: Its standard error over the test rows.
        bits_per_dim: The same mean in bits a column.
        properties: Those of `PROPERTIES`; None where one does not apply.
        evidence: The numbers behind them.
        probes: What the paper's table lacks: those of `PROBES`.
        costs: ``step_ms``, ``log_prob_ms``, ``sample_ms``, ``peak_mb``, each of 256 rows.
        arrays: ``rows`` (-log p of each test row), ``truth`` (up to 2000 test rows of the data,
            24 of more than two columns), ``samples`` (as many of the model), ``errors`` (the
            inverse's largest error in each of up to 1000 test rows), and with two columns
            ``density`` (G, G), over the range of the data, a tenth wider on each side. Any may be
            missing.
    """

    plan: Plan
    data: Data
    title: str
    recipe: str
    origin: str
    command: str
    versions: dict[str, str]
    error: str | None = None
    mendable: bool = False
    remark: str | None = None
    width: int | None = None
    parameters: int = 0
    steps: int = 0
    train_seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    nats: float | None = None
    row_standard_error: float | None = None
    bits_per_dim: float | None = None
    properties: dict[str, bool | None] = field(default_factory=dict)
    evidence: dict[str, float | int | None] = field(default_factory=dict)
    probes: dict[str, Any] = field(default_factory=dict)
    costs: dict[str, float | None] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)

    def note(self, said: str) -> None:
        """Add to the remark."""
        self.remark = "; ".join(filter(None, ((self.remark or "").rstrip("."), said)))

    def save(self, folder: Path) -> None:
        """Write it to its folder, the arrays first: with ``result.json`` the run is done."""
        write(folder / ARRAYS, lambda part: save_arrays(part, self.arrays))
        record = {name: value for name, value in vars(self).items() if name != "arrays"}
        write_json(
            folder / RESULT, record | {"plan": asdict(self.plan), "data": asdict(self.data)}
        )

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Read it from its folder."""
        with reading(folder / RESULT):
            record = read_json(folder / RESULT)
            record["plan"] = Plan(**record["plan"])
            data = record["data"]
            for name in ("columns", "low", "high"):
                data[name] = tuple(data[name])
            record["data"] = Data(**data)
            return cls(**record, arrays=load_arrays(folder / ARRAYS))

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a run has come to its end there, and not to an error that may be mended."""
        if not ((folder / RESULT).is_file() and (folder / ARRAYS).is_file()):
            return False
        with reading(folder / RESULT):
            return not read_json(folder / RESULT).get("mendable", False)


def save_arrays(path: Path, arrays: dict[str, Array]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def found(folders: Sequence[Path]) -> list[Result]:
    """The results of all runs beneath the folders, each plan once, in a lasting order.

    Raises:
        UsageError: There is no folder of that name, or no result in it.
    """
    results: dict[str, Result] = {}
    for folder in folders:
        here = list(beneath(folder))
        if not here and any(folder.glob("**/runs/*")):
            raise UsageError(
                f"{folder} holds no run that has come to its end: give the command that began it "
                "again."
            )
        if not here:
            raise UsageError(f"{folder} holds no results: name the --out of a compare.")
        for result in here:
            slug = result.plan.slug
            if slug not in results or (results[slug].mendable and not result.mendable):
                results[slug] = result
    return [results[slug] for slug in sorted(results)]


def beneath(folder: Path) -> Iterator[Result]:
    for path in sorted(folder.glob(f"**/runs/*/{RESULT}")):
        if path.with_name(ARRAYS).is_file():
            yield Result.load(path.parent)
