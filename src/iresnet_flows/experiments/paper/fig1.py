"""Figure 1: the paths of points on a line through a ResNet and through an i-ResNet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from iresnet_flows.blocks import InvertibleResidualBlock
from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.drawing import save
from iresnet_flows.experiments.machines import each_in_parallel
from iresnet_flows.experiments.markdown import markdown_table
from iresnet_flows.experiments.paper.trainings import Trained, begin, seeded, trained
from iresnet_flows.experiments.paper.trajectories import crossings, slopes, trajectories
from iresnet_flows.experiments.storage import write_json, write_text
from iresnet_flows.experiments.studies import Settings, check_models
from iresnet_flows.experiments.versions import versions
from iresnet_flows.layers import Layer
from iresnet_flows.lipschitz import LipschitzMLP
from iresnet_flows.models import UnconstrainedBlock

__all__ = ["Outcome", "System", "study"]

MODELS = {"resnet": "ResNet", "i-resnet": "i-ResNet"}
BOUND = 0.9
RATE = 5e-3
EDGE = 2.0
SAMPLES = 128
NOISE = 0.5
DRAWN = 25
GRID = 2001
INVERSE_STEPS = 100
HEADS = (
    *("model", "seed", "rms error of x³", "rms error of x", "crossings", "smallest slope"),
    *("certified slope", "error of the inverse", "steps", "s"),
)
EXPLANATION = (
    "Both systems have {blocks} blocks with hidden layers of {hidden} features, trained on the "
    "same {samples} points of [-2, 2] and targets with Gaussian noise of deviation {noise:g}: x³ "
    "after half of the blocks, x after all. The rms errors are those against the targets without "
    "noise, on {grid} points. Crossings are those of {drawn} paths, from one layer to the next, "
    "between neighbours. The smallest slope is that of the whole map on the {grid} points, and "
    "the certified one the product of 1 - L over the blocks. The error of the inverse is the "
    "largest of |x - F⁻¹(F(x))| there, in float64: of the certified inverse of the i-ResNet, and "
    "of {steps} fixed-point iterations a block of the ResNet. Colours tell the paths by where "
    "they begin; white circles are crossings."
)


@dataclass(frozen=True)
class Shape:
    """The size of a system, an even number of blocks, and how long it is trained."""

    blocks: int
    hidden: tuple[int, int]
    steps: int
    seeds: tuple[int, ...]


SHAPES = {
    "quick": Shape(12, (32, 32), 1500, (0, 1, 2)),
    "paper": Shape(40, (64, 64), 10_000, (0, 1, 2, 3, 4)),
}


@dataclass(frozen=True)
class System:
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

    def record(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "folder"}

    def layers(self) -> nn.ModuleList:
        """The blocks as they are drawn from the seed."""
        make = unconstrained if self.model == "resnet" else constrained
        blocks, hidden = self.shape.blocks, self.shape.hidden
        return seeded(lambda: nn.ModuleList(make(hidden) for _ in range(blocks)), self.seed)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a system came to.

    Arguments:
        system: What was trained.
        trained: What that took.
        paths: Those that are drawn, (blocks + 1, N).
        crossings: Where they meet, as rows (depth, value).
        errors: The rms error of each target.
        slope: The smallest slope of the map.
        certified: A lower bound of it, or None.
        inverse: The largest error of the inverse.
    """

    system: System
    trained: Trained
    paths: Tensor
    crossings: Tensor
    errors: tuple[float, float]
    slope: float
    certified: float | None
    inverse: float


def study(settings: Settings) -> None:
    """Train the two systems, follow points through them, and find where their order is lost.

    Raises:
        UsageError: A model is unknown, or a training failed.
    """
    models = check_models(settings.models, tuple(MODELS))
    shape, console = SHAPES[settings.scale], Console()
    systems = [
        System(model, seed, shape, settings.minutes, folder(settings, model, seed))
        for seed in settings.seeds or shape.seeds
        for model in models
    ]
    for system in systems:
        begin(system.folder, system.record(), settings.resume)
    try:
        found = list(each_in_parallel(systems, settings.jobs, console, "systems", perform))
    except Diverged as error:
        raise UsageError(f"{error}: give another --seed.") from error

    first = [each for each in found if each.system.seed == systems[0].seed]
    save(settings.out / "fig1.png", picture(first))
    report(settings, found)
    console.print(terminal_table(found))
    for line in sentences(found):
        console.print(line)
    console.print(f"The figure is at {settings.out / 'fig1.png'}")


def folder(settings: Settings, model: str, seed: int) -> Path:
    return settings.out / "runs" / f"fig1-{settings.scale}-{model}-seed{seed}"


def unconstrained(hidden: tuple[int, int]) -> Layer:
    first, second = hidden
    g = nn.Sequential(
        *(nn.Linear(1, first), nn.ELU(), nn.Linear(first, second), nn.ELU()),
        nn.Linear(second, 1),
    )
    return UnconstrainedBlock(g, INVERSE_STEPS)


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
        *(system, outcome, drawn, crossings(drawn)),
        (rms(half - x**3), rms(paths[-1] - x)),
        *(float(slopes(layers, x).min()), certified, float(error)),
    )


def rms(errors: Tensor) -> float:
    return float(errors.square().mean().sqrt())


def picture(found: Sequence[Outcome]) -> Figure:
    """The paths of each system, side by side."""
    figure = Figure(figsize=(4.7 * len(found), 4.4), layout="constrained", dpi=140)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(found), sharey=True, squeeze=False)[0].tolist()
    for axis, each in zip(axes, found, strict=True):
        draw(axis, each)
    axes[0].set_ylabel("value")
    return figure


def draw(axis: Axes, each: Outcome) -> None:
    """Paths from left to right, coloured by where they begin, and their crossings."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    depths = range(len(each.paths))
    for i, path in enumerate(each.paths.T):
        axis.plot(depths, path, color=colours(0.92 * i / (DRAWN - 1)), linewidth=1.3)
    axis.plot(*each.crossings.T, "o", color="white", markeredgecolor="black", markersize=6)
    half = depths[-1] / 2
    axis.axvline(half, color="0.6", linestyle=":", linewidth=1)
    count = len(each.crossings)
    said = f"{count} crossing{'s' if count != 1 else ''}" if count else "no crossings"
    axis.set_title(f"{MODELS[each.system.model]}: {said}", fontsize=12)
    axis.set_xticks([0, half, depths[-1]], ["0\nx", f"{half:g}\nx³", f"{depths[-1]}\nx"])
    axis.set_xlabel("blocks passed, and what is aimed at")
    axis.margins(x=0.02)
    axis.spines[["top", "right"]].set_visible(False)


def report(settings: Settings, found: Sequence[Outcome]) -> None:
    """The numbers as Markdown and JSON."""
    record = {
        "command": settings.command,
        "scale": settings.scale,
        "versions": versions(("numpy", "matplotlib")),
        "noise": NOISE,
        "rows": [row(each) for each in found],
    }
    write_json(settings.out / "fig1.json", record)
    shape = SHAPES[settings.scale]
    explanation = EXPLANATION.format(
        blocks=shape.blocks,
        hidden=" and ".join(map(str, shape.hidden)),
        samples=SAMPLES,
        noise=NOISE,
        grid=GRID,
        drawn=DRAWN,
        steps=INVERSE_STEPS,
    )
    parts = [
        f"`{settings.command}`",
        "![Paths of points through the blocks of each system](fig1.png)",
        explanation,
        markdown_table(HEADS, [cells(each) for each in found]),
        *sentences(found),
    ]
    write_text(settings.out / "fig1.md", "\n\n".join(parts) + "\n")


def terminal_table(found: Sequence[Outcome]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="left" if head == "model" else "right")
    for each in found:
        table.add_row(*cells(each))
    return table


def row(each: Outcome) -> dict[str, Any]:
    return {
        **each.system.record(),
        "rms_errors": each.errors,
        "crossings": each.crossings.tolist(),
        "smallest_slope": each.slope,
        "certified_slope": each.certified,
        "inverse_error": each.inverse,
        "optimiser_steps": each.trained.steps,
        "seconds": each.trained.seconds,
    }


def cells(each: Outcome) -> list[str]:
    return [
        *(MODELS[each.system.model], str(each.system.seed)),
        *(f"{error:.3f}" for error in each.errors),
        *(str(len(each.crossings)), f"{each.slope:.3g}"),
        "none" if each.certified is None else f"{each.certified:.1e}",
        f"{each.inverse:.1e}" if math.isfinite(each.inverse) else "not finite",
        *(f"{each.trained.steps:,}", f"{each.trained.seconds:.0f}"),
    ]


def sentences(found: Sequence[Outcome]) -> Iterable[str]:
    """What became of the order of the points."""
    for model, title in MODELS.items():
        group = [each for each in found if each.system.model == model]
        if not group:
            continue
        lost = sum(len(each.crossings) > 0 for each in group)
        falls = sum(each.slope <= 0 for each in group)
        yield (
            f"{title}: paths cross in {lost} of {len(group)} trainings, and the whole map turns "
            f"back somewhere in {falls}."
        )
