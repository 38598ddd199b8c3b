"""How much is measured: the networks, the batches and the patience."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from iresnet_flows.experiments.bench.clocks import Clock
from iresnet_flows.experiments.bench.contestants import Net
from iresnet_flows.experiments.bench.rows import Point, Row, Target, TimesBetter

__all__ = ["FULL", "QUICK", "Case", "Settings", "Task"]


@dataclass(frozen=True)
class Task:
    """A piece of work that is done or not.

    Arguments:
        title: What the progress bar says.
        run: Measures.
    """

    title: str
    run: Callable[[], Sequence[Row | Point]]


@dataclass(frozen=True)
class Case:
    """A network and a batch to time.

    Arguments:
        net: The network.
        batch: The rows of a batch.
        step: What is asked of the training step.
    """

    net: Net
    batch: int
    step: Target | None

    def __str__(self) -> str:
        return f"{self.net}, batch {self.batch}"


@dataclass(frozen=True)
class Settings:
    """The sizes of a benchmark.

    Arguments:
        clock: How often times are taken.
        cases: The networks whose times are taken.
        warm_steps: Training steps before times are taken, so that blocks are no longer near the
            identity where they start.
        train_steps: Training steps before errors are taken.
        bounds: The bounds L of the blocks whose errors are taken.
        repeats: How often an estimate is drawn.
        hostile_steps: Steps of the attempt to break a bound.
        sweeps: The sizes over which growth is measured.
        growth: The clock of that.
        exact_features: The dimension at which the exact log-det is timed.
        trained: The network whose errors are taken.
    """

    clock: Clock
    cases: tuple[Case, ...]
    warm_steps: int
    train_steps: int
    bounds: tuple[float, ...]
    repeats: int
    hostile_steps: int
    sweeps: dict[str, tuple[int, ...]]
    growth: Clock
    exact_features: int = 784
    trained: Net = field(default_factory=lambda: Net(64, (128, 128)))

    def record(self) -> dict[str, float]:
        """How often, in numbers."""
        return {
            "rounds": self.clock.rounds,
            "seconds a loop": self.clock.seconds,
            "warm-up steps": self.warm_steps,
            "training steps": self.train_steps,
            "repeated estimates": self.repeats,
            "hostile steps": self.hostile_steps,
        }


def cases() -> tuple[Case, ...]:
    steps = {2: TimesBetter(2.5, 4.0), 16: TimesBetter(1.8, 3.0), 64: TimesBetter(1.5, 2.5)}
    deep = [
        Case(Net(2, (128,) * 3), 500, steps[2]),
        Case(Net(16, (128,) * 3), 256, steps[16]),
        Case(Net(64, (256,) * 3), 256, steps[64]),
    ]
    # Two hidden layers have an exact trace of the Jacobian that costs a product.
    shallow = [
        Case(Net(16, (128,) * 2), 256, steps[16]),
        Case(Net(64, (128,) * 2), 256, steps[64]),
    ]
    return (*deep, *shallow)


FULL = Settings(
    clock=Clock(rounds=30, seconds=8),
    cases=cases(),
    warm_steps=100,
    train_steps=400,
    bounds=(0.9, 0.97),
    repeats=32,
    hostile_steps=200,
    sweeps={
        "features": (2, 8, 32, 128, 784),
        "width": (32, 64, 128, 256, 512),
        "depth": (1, 2, 3, 4),
        "batch": (16, 64, 256, 1024),
    },
    growth=Clock(rounds=5, seconds=2, patience=4),
)

QUICK = Settings(
    clock=Clock(rounds=7, seconds=1.2),
    cases=cases(),
    warm_steps=40,
    train_steps=150,
    bounds=(0.9, 0.97),
    repeats=8,
    hostile_steps=60,
    sweeps={"features": (2, 16, 128), "width": (32, 256), "depth": (1, 3), "batch": (16, 256)},
    growth=Clock(rounds=3, seconds=0.3, patience=1),
)
