"""The systems of Figure 1: residual networks of a line, and what they do to its points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from iresnet_flows.blocks import InvertibleResidualBlock
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.paper.trainings import Planned, Trained, trained
from iresnet_flows.experiments.paper.trajectories import crossings, slopes, trajectories
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.layers import Layer
from iresnet_flows.lipschitz import LipschitzMLP
from iresnet_flows.models import IteratedBlock

__all__ = [
    "DRAWN",
    "EDGE",
    "GRID",
    "INVERSE_STEPS",
    "MODELS",
    "NOISE",
    "SAMPLES",
    "SHAPES",
    "Outcome",
    "Shape",
    "System",
    "perform",
]

MODELS = {"resnet": "ResNet", "i-resnet": "i-ResNet"}
BOUND = 0.9
RATE = 5e-3
EDGE = 2.0
SAMPLES = 64
NOISE = 0.5
DRAWN = 25
GRID = 2001
INVERSE_STEPS = 100


@dataclass(frozen=True)
class Shape:
    """The size of a system, an even number of blocks, and how long it is trained."""

    blocks: int
    hidden: tuple[int, int]
    steps: int
    seeds: tuple[int, ...]


SHAPES = {
    "quick": Shape(10, (32, 32), 3000, (0, 1, 2)),
    "paper": Shape(40, (64, 64), 10_000, (0, 1, 2, 3, 4)),
}


@dataclass(frozen=True)
class System(Planned):
    """A training of the study; it can be sent to another process.

    Arguments:
        model: A name of `MODELS`.
        seed: Of the parameters and of the noise.
        shape: Its size.
        minutes: The time of training, or None for the steps of the shape.
        folder: Of this training alone.
    """

    model: str
    seed: int
    shape: Shape
    minutes: float | None
    folder: Path

    def layers(self) -> nn.ModuleList:
        """The blocks as they are drawn from the seed."""
        make = unconstrained if self.model == "resnet" else constrained
        blocks, hidden = self.shape.blocks, self.shape.hidden
        with seeded(self.seed):
            return nn.ModuleList(make(hidden) for _ in range(blocks))


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a system came to.

    Arguments:
        system: What was trained.
        trained: What that took.
        paths: Those that are drawn, (blocks + 1, N).
        whole: The values of the whole map at all points, (M,).
        crossings: Where they meet, as rows (depth, value).
        errors: The rms error of each target.
        slope: The smallest slope of the map.
        certified: A lower bound of it, or None.
        inverse: The largest error of the inverse.
    """

    system: System
    trained: Trained
    paths: Tensor
    whole: Tensor
    crossings: Tensor
    errors: tuple[float, float]
    slope: float
    certified: float | None
    inverse: float


def unconstrained(hidden: tuple[int, int]) -> Layer:
    first, second = hidden
    g = nn.Sequential(
        *(nn.Linear(1, first), nn.ELU(), nn.Linear(first, second), nn.ELU()),
        nn.Linear(second, 1),
    )
    return IteratedBlock(g, INVERSE_STEPS)


def constrained(hidden: tuple[int, int]) -> Layer:
    return InvertibleResidualBlock(LipschitzMLP(1, hidden, BOUND, activation="elu"))


def perform(system: System) -> Outcome:
    """Train the system, or take it from its folder, and measure it.

    Raises:
        Diverged: The loss is no longer a number.
    """
    layers = system.layers()
    blocks = cast("Sequence[Layer]", layers)
    generator = torch.Generator().manual_seed(system.seed)
    x = torch.linspace(-EDGE, EDGE, SAMPLES)
    noise = NOISE * torch.randn(2, SAMPLES, generator=generator)
    cubes, same = x**3 + noise[0], x + noise[1]

    def loss() -> Tensor:
        paths = trajectories(blocks, x)
        half, whole = paths[len(blocks) // 2], paths[-1]
        return (half - cubes).square().mean() + (whole - same).square().mean()

    steps = None if system.minutes else system.shape.steps
    outcome = trained(layers, loss, Budget(steps, system.minutes), RATE, system.folder)
    return measured(system, outcome, cast("Sequence[Layer]", layers.double()))


def measured(system: System, outcome: Trained, layers: Sequence[Layer]) -> Outcome:
    """The paths of a trained system in float64, and what is read from them."""
    x = torch.linspace(-EDGE, EDGE, GRID, dtype=torch.float64)
    paths = trajectories(layers, x)
    back = paths[-1].unsqueeze(1)
    for layer in reversed(list(layers)):
        back = layer.invert(back)
    error = (back.squeeze(1) - x).abs().nan_to_num(math.inf).max()
    certified = None
    if system.model == "i-resnet":
        bounds = [cast("LipschitzMLP", layer.branch).lipschitz_bound() for layer in layers]
        certified = math.prod(1 - float(bound) for bound in bounds)
    drawn = paths[:, :: (GRID - 1) // (DRAWN - 1)]
    half = paths[len(layers) // 2]
    return Outcome(
        *(system, outcome, drawn, paths[-1], crossings(drawn)),
        (rms(half - x**3), rms(paths[-1] - x)),
        *(float(slopes(layers, x).min()), certified, float(error)),
    )


def rms(errors: Tensor) -> float:
    return float(errors.square().mean().sqrt())
