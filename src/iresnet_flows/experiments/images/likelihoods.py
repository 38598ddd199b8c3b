"""Densities trained and measured alike: what Table 4 and Figure 5 share."""

from __future__ import annotations

import csv
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from iresnet_flows.experiments.images.clocks import LOG
from iresnet_flows.experiments.images.evaluation import bits_per_dim
from iresnet_flows.experiments.images.sets import Images
from iresnet_flows.experiments.images.specs import Spec, kept
from iresnet_flows.experiments.studies import Settings, chosen

__all__ = ["MINUTES", "Outcome", "data_of", "perform"]

DATA = {"quick": ("mnist",), "paper": ("mnist", "cifar10")}
MINUTES = 4.25
TESTED = {"quick": 1000, "paper": None}
POINTS = 60


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Arguments:
        data: The name of the data.
        model: The name of the density.
        seed: That of the run.
        train_images: How many it is trained on.
        test_images: How many it is measured on.
        failure: Why there is no result, or None.
        bits: Bits for each dimension of the test images.
        bits_error: Its standard error over them.
        parameters: The trainable numbers.
        steps: The steps of training.
        seconds: Their time.
        curve: Seconds and training bits/dim in the course of it, means of what was logged.
    """

    data: str
    model: str
    seed: int
    train_images: int
    test_images: int
    failure: str | None = None
    bits: float | None = None
    bits_error: float | None = None
    parameters: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[list[float]] = field(default_factory=list)


def data_of(settings: Settings) -> tuple[str, ...]:
    """The names of the images of a study, those that are asked for or those of its scale.

    Raises:
        UsageError: Others are asked for.
    """
    if settings.data is None:
        return DATA[settings.scale]
    return chosen("data", (settings.data,), DATA["paper"])


def perform(spec: Spec) -> Outcome:
    """Train and measure, or read what was."""
    return kept(spec, Outcome, measure, TESTED[spec.run.scale])


def measure(spec: Spec, model: nn.Module, test: Images) -> dict[str, Any]:
    """What an `Outcome` says of the trained model."""
    bits, error = bits_per_dim(model, test)
    return {"bits": bits, "bits_error": error, "curve": course(spec.folder / LOG)}


def course(path: Path) -> list[list[float]]:
    """Seconds and loss, means over parts of the log."""
    with path.open(newline="") as file:
        rows = [(float(row["seconds"]), float(row["loss"])) for row in csv.DictReader(file)]
    size = -(-len(rows) // POINTS) or 1
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    return [[statistics.fmean(values) for values in zip(*part, strict=True)] for part in parts]
