"""One contender on one data set with one seed: trained, tested once, kept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from nflows.flows.base import Flow
from rich.progress import Progress, TaskID

from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.comparison.contenders import Contender, build
from iresnet_flows.experiments.comparison.training import Training, fit, prepared
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.experiments.storage import read_json, write, write_json

__all__ = ["Run", "standard_error", "train"]


@dataclass
class Run:
    """What a training came to; nats are in the data's own units, lower is better.

    Arguments:
        model: The contender's name.
        seed: That of the weights, the order and the noise.
        error: Why there is no result, or None.
        row_nats: -log p of each test row.
        inverse_error: The largest error of inverse(forward(z)) over the test rows, in model
            space, float32; None where the inverse failed.
        parameters: The trainable parameters.
        steps: The optimiser steps taken.
        train_seconds: The time they took, validation included.
        curve: (step, seconds, validation nats) at each validation.
        flow: The flow with its best weights, in model space.
    """

    model: str
    seed: int
    error: str | None = None
    row_nats: list[float] = field(default_factory=list)
    inverse_error: float | None = None
    parameters: int = 0
    steps: int = 0
    train_seconds: float = 0.0
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    flow: Flow | None = None

    @property
    def nats(self) -> float:
        """The mean of -log p over the test rows."""
        return statistics.fmean(self.row_nats) if self.row_nats else math.nan

    @property
    def row_standard_error(self) -> float:
        """Its standard error over the test rows."""
        return standard_error(self.row_nats)


def standard_error(values: Sequence[float]) -> float:
    """The standard error of the mean of independent values."""
    return statistics.stdev(values) / math.sqrt(len(values))


def train(
    contender: Contender,
    dataset: Dataset,
    seed: int,
    budget: Budget,
    folder: Path,
    device: str,
    progress: Progress,
    task: TaskID,
) -> Run:
    """Train, or go on with, or read what is in the folder."""
    result, weights = folder / "result.json", folder / "weights.pt"
    flow = seeded(contender, dataset.features, seed)
    if result.exists():
        run = Run(**read_json(result), flow=flow)
        if run.error is None:
            flow.load_state_dict(torch.load(weights, weights_only=True))
        flow.eval()
        progress.update(task, completed=1.0)
        return run

    training = Training(
        flow, dataset, budget, contender.learning_rate, contender.weight_decay, seed
    )
    run = Run(
        contender.name, seed, parameters=sum(p.numel() for p in flow.parameters()), flow=flow
    )
    try:
        fit(training, folder, device, progress, task)
        test(run, flow, dataset)
    except Diverged as diverged:
        run.error = str(diverged)
    run.steps, run.train_seconds, run.curve = training.steps, training.seconds, training.curve

    write(weights, lambda part: torch.save(flow.state_dict(), part))
    write_json(result, {k: v for k, v in vars(run).items() if k != "flow"})
    for checkpoint in folder.glob("*.ckpt"):
        checkpoint.unlink()
    return run


def test(run: Run, flow: Flow, dataset: Dataset) -> None:
    """Read the test rows, once."""
    z = prepared(dataset, dataset.test)
    with torch.no_grad(), quiet():
        nats = -flow.log_prob(z) + dataset.log_scale
        try:
            noise, _ = flow._transform(z)
            restored, _ = flow._transform.inverse(noise)
            run.inverse_error = float((restored - z).abs().max())
        except InverseNotConverged:
            run.inverse_error = None
    run.row_nats = nats.tolist()
    if not math.isfinite(run.nats):
        run.error = f"the test loss is {run.nats}"


def seeded(contender: Contender, features: int, seed: int) -> Flow:
    """A fresh flow; the caller's random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(contender, features)
