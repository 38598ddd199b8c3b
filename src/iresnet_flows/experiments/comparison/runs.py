"""One contender on one data set with one seed: trained, tested once, measured, kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from iresnet_flows.errors import StorageError
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.comparison import costs
from iresnet_flows.experiments.comparison.contenders import Contender, chosen
from iresnet_flows.experiments.comparison.evaluation import score, show
from iresnet_flows.experiments.comparison.probes import probe, takes_context
from iresnet_flows.experiments.comparison.properties import measure
from iresnet_flows.experiments.comparison.results import Data, Plan, Result
from iresnet_flows.experiments.comparison.training import (
    CHECKPOINT,
    Progress,
    Training,
    fit,
    prepared,
    weight_decay,
)
from iresnet_flows.experiments.data import load
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.machines import on_threads, torch_device
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.storage import write
from iresnet_flows.experiments.versions import versions
from iresnet_flows.experiments.widths import trainable

__all__ = ["Task", "contender", "perform", "read"]

PACKAGES = ("nflows", "normflows", "zuko", "torchdiffeq", "flowcon", "lightning", "numpy")
WEIGHTS = "weights.pt"
PROBED_ROWS = 64


@dataclass(frozen=True)
class Task:
    """A run to be carried out; it can be sent to another process.

    Arguments:
        plan: What it is made of.
        width: The contender's width, or None where it has none.
        remark: What a reader must know of its numbers, or None.
        data_dir: Where data sets of files are.
        folder: The folder of this run alone.
        command: The command that asks for it.
    """

    plan: Plan
    width: int | None
    remark: str | None
    data_dir: Path | None
    folder: Path
    command: str

    def is_done(self) -> bool:
        """Whether it was carried out before."""
        return Result.is_in(self.folder)


def perform(task: Task, progress: Progress) -> Result:
    """Train, or go on with, or read what is in the folder.

    Whatever a contender raises is its result: the others go on.

    Raises:
        KeyboardInterrupt: As given; the last checkpoint stays.
        StorageError: A file cannot be written or read, which is not the contender's fault.
    """
    if task.is_done():
        return Result.load(task.folder)
    plan = task.plan
    dataset = read(plan.data, task.data_dir, plan.rows)
    who = contender(plan.model)
    result = blank(task, who, dataset)
    with on_threads(1), seeded(plan.seed, torch_device(plan.device)), quiet():
        try:
            run(result, who, dataset, task.folder, progress)
        except StorageError:
            raise
        except Diverged as diverged:
            result.error = str(diverged)
        except Exception as error:  # noqa: BLE001  a user's own contender may raise anything
            result.error, result.mendable = in_a_line(error), True
    result.save(task.folder)
    (task.folder / CHECKPOINT).unlink(missing_ok=True)
    return result


def run(
    result: Result, who: Contender, dataset: Dataset, folder: Path, progress: Progress
) -> None:
    """Fill in the result."""
    plan = result.plan
    flow = who.make(dataset.features, result.width or 0)
    result.parameters = trainable(flow)
    training = Training(flow, who, dataset, Budget(plan.steps, plan.minutes), plan.seed)
    try:
        fit(training, folder, plan.device, progress)
    finally:
        result.steps, result.train_seconds = training.steps, training.seconds
        result.curve = training.curve
    write(folder / WEIGHTS, lambda part: torch.save(flow.state_dict(), part))

    progress(1.0, "measuring")
    if who.density:
        score(result, flow, dataset)
    z = prepared(dataset, dataset.test[:PROBED_ROWS])
    with noted(result, "the drawing of it"):
        show(result, who, flow, dataset)
    with noted(result, "its properties"):
        found = measure(flow, z, who.density)
        result.properties, result.evidence = found.properties, found.evidence
    with noted(result, "its costs"):
        result.costs = costs.measure(flow, prepared(dataset, dataset.test[: costs.ROWS]))
    with noted(result, "its probes"):
        result.probes |= probe(flow, z, who.density)
        if who.origin != "yours":
            width = result.width or 0
            result.probes["takes_context"] = takes_context(who, dataset.features, width)


@contextmanager
def noted(result: Result, what: str) -> Iterator[None]:
    """A failure within costs a trained flow this part of its result alone, and is said."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  a user's own contender may raise anything
        result.note(f"{what} failed: {in_a_line(error)}")


def in_a_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def blank(task: Task, who: Contender, dataset: Dataset) -> Result:
    low, high = dataset.train[:, :2].aminmax(dim=0)
    data = Data(
        name=dataset.name,
        columns=dataset.columns,
        train=len(dataset.train),
        validation=len(dataset.validation),
        test=len(dataset.test),
        discrete=bool(dataset.discrete.any()),
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
    )
    return Result(
        *(task.plan, data, who.title, recipe(who, len(dataset.train)), who.origin, task.command),
        versions(PACKAGES),
        remark=task.remark,
        width=task.width,
    )


def recipe(who: Contender, rows: int) -> str:
    """The architecture, and how it is trained."""
    how = f"a rate of {who.learning_rate:g} and weight decay {weight_decay(who, rows):g}"
    return f"{who.recipe}; AdamW with {how}"


def contender(name: str) -> Contender:
    """The contender of a plan: a known one, or a user's own."""
    (found,) = chosen([], [name]) if ":" in name else chosen([name])
    return found


@lru_cache(maxsize=1)
def read(name: str, data_dir: Path | None, rows: int | None) -> Dataset:
    return load(name, data_dir).first(rows)
