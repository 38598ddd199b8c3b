"""The flows of Figure 4, and what estimators make of the log-determinants of their blocks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from iresnet_flows.blocks import InvertibleResidualBlock
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.data import Dataset, load
from iresnet_flows.experiments.paper import log_dets
from iresnet_flows.experiments.paper.log_dets import Draws, Estimator, Row, Tail
from iresnet_flows.experiments.paper.trainings import Planned, Trained, trained
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.layers import ActNorm, Stack
from iresnet_flows.lipschitz import LipschitzMLP
from iresnet_flows.lipschitz.branches import Residual
from iresnet_flows.logdet import Exact, PowerSeries, RussianRoulette

__all__ = [
    "BLOCKS",
    "COEFFICIENTS",
    "EFFORTS",
    "MODELS",
    "PROBES",
    "SERIES",
    "TERMS",
    "Effort",
    "Flow",
    "Outcome",
    "perform",
]

MODELS = {"two-moons": (64, 64), "digits": (128, 128)}
COEFFICIENTS = (0.5, 0.7, 0.9)
BLOCKS = 4
TERMS = 20
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)
PROBES = 250
RATE = 3e-3
BATCH = 128
NARROW = 8
SERIES = ("gaussian", "series")


@dataclass(frozen=True)
class Effort:
    """How long flows are trained, and how much is drawn from their blocks.

    Arguments:
        steps: Of each training.
        points: The test points at which Jacobians are taken.
        repeats: How often 250 probes are drawn.
    """

    steps: int
    points: int
    repeats: int


EFFORTS = {"quick": Effort(800, 16, 2), "paper": Effort(10_000, 64, 16)}


@dataclass(frozen=True)
class Flow(Planned):
    """A training of the study; it can be sent to another process.

    Arguments:
        model: The data, a name of `MODELS`.
        coefficient: The bound c of each of the three linear layers of a branch.
        seed: Of the parameters and of all that is drawn.
        effort: How much is done.
        minutes: The time of training, or None for the steps of the effort.
        folder: Of this training alone.
    """

    model: str
    coefficient: float
    seed: int
    effort: Effort
    minutes: float | None
    folder: Path

    def make(self, generator: torch.Generator) -> Stack:
        """The flow, with parameters as they are drawn from the seed."""
        features = load(self.model).features
        exact = features <= NARROW
        estimator = Exact() if exact else RussianRoulette(generator=generator)

        def block() -> InvertibleResidualBlock:
            branch = LipschitzMLP(features, MODELS[self.model], self.coefficient**3)
            return InvertibleResidualBlock(branch, estimator)

        with seeded(self.seed):
            return Stack([layer for _ in range(BLOCKS) for layer in (ActNorm(features), block())])


@dataclass(frozen=True)
class Outcome:
    """What estimators make of the blocks of a flow: means over its blocks and over test points.

    Arguments:
        flow: What was trained.
        trained: What that took.
        features: The dimension d.
        nats: The negative log-density of test points, with exact log-dets.
        lipschitz: The certified bound of each block.
        residue: The largest difference of the whole series from slogdet of the dense I + J.
        bound: Theorem 3's bound after n = 1, ..., `TERMS` terms.
        left_out: The size of the bias after as many terms, computed exactly.
        tightest: The largest ratio of that bias to the bound of its block, over n, blocks, points.
        exact: The exact standard deviation of both series after as many terms.
        drawn: For each estimator rows (terms, bias, its standard error, standard deviation).
        far: For each series, how far from the exact bias the drawn one is, in standard errors.
        tails: The series that stop by their certified bound.
    """

    flow: Flow
    trained: Trained
    features: int
    nats: float
    lipschitz: list[float]
    residue: float
    bound: list[float]
    left_out: list[float]
    tightest: float
    exact: dict[str, list[float]]
    drawn: dict[str, list[Row]]
    far: dict[str, list[float]]
    tails: list[Tail]


@dataclass(frozen=True)
class Block:
    """What is measured of one block.

    Arguments:
        residual: The branch.
        x: The points that reach it, (B, d) float64.
        jacobians: The Jacobians there, (B, d, d).
        truth: The log-determinants, (B,).
    """

    residual: Residual
    x: Tensor
    jacobians: Tensor
    truth: Tensor


def perform(flow: Flow) -> Outcome:
    """Train the flow, or take it from its folder, and measure its blocks.

    Raises:
        Diverged: The loss is no longer a number.
    """
    data = load(flow.model)
    generator = torch.Generator().manual_seed(flow.seed)
    stack = flow.make(generator)

    def loss() -> Tensor:
        rows = torch.randint(len(data.train), (BATCH,), generator=generator)
        return nats(stack, data.prepare(data.train[rows], generator)).mean()

    steps = None if flow.minutes else flow.effort.steps
    outcome = trained(stack, loss, Budget(steps, flow.minutes), RATE, flow.folder)
    return measured(flow, outcome, stack.double(), data)


def nats(stack: Stack, x: Tensor) -> Tensor:
    """The negative log-density of a flow with a standard normal base, (B,)."""
    z, log_det = stack(x)
    return z.square().sum(1) / 2 + z.shape[1] * math.log(2 * math.pi) / 2 - log_det


@torch.no_grad()
def measured(flow: Flow, outcome: Trained, stack: Stack, data: Dataset) -> Outcome:
    """What the estimators make of the blocks of a trained flow in float64."""
    own = zlib.crc32(f"{flow.model} {flow.coefficient} {flow.seed}".encode())
    generator = torch.Generator().manual_seed(own)
    test = data.prepare(data.test, generator).double()
    blocks = list(opened(stack, test[: flow.effort.points]))
    biases = [log_dets.left_out(block.jacobians, TERMS) for block in blocks]
    bounds = [
        log_dets.loss_bound(data.features, float(block.residual.lipschitz), TERMS)
        for block in blocks
    ]
    draws = drawn(blocks, flow.effort.repeats, generator)
    truths = [block.truth for block in blocks]
    rows = {
        name: [log_dets.pooled(each, truths) for each in found] for name, found in draws.items()
    }
    signed = torch.stack(biases).mean((0, 2)).tolist()
    return Outcome(
        *(flow, outcome, data.features),
        float(nats(stack, test).mean()) + data.log_scale,
        [float(block.residual.lipschitz) for block in blocks],
        max(residue(block) for block in blocks),
        torch.stack(bounds).mean(0).tolist(),
        torch.stack(biases).abs().mean((0, 2)).tolist(),
        max(
            float((bias.abs() / bound[:, None]).max())
            for bias, bound in zip(biases, bounds, strict=True)
        ),
        exact_deviations(blocks),
        rows,
        {name: log_dets.distances(rows[name], signed) for name in SERIES},
        tails(blocks, flow.seed),
    )


def opened(stack: Stack, x: Tensor) -> Iterator[Block]:
    """The blocks of a flow with the points that reach them."""
    eye = torch.eye(x.shape[1], dtype=x.dtype)
    for layer in stack.each():
        if isinstance(layer, InvertibleResidualBlock):
            layer.log_det = Exact()
            g = layer.branch.at()
            jacobians = g.linearize(x)[1].dense()
            yield Block(g, x, jacobians, torch.linalg.slogdet(eye + jacobians)[1])
        x = layer.transform(x)


def residue(block: Block) -> float:
    """The largest difference of the whole series from the truth."""
    series = log_dets.partial_sums(block.jacobians, 1)[0].diagonal(dim1=1, dim2=2).sum(1)
    return float((series - log_dets.left_out(block.jacobians, 1)[0] - block.truth).abs().max())


def exact_deviations(blocks: Sequence[Block]) -> dict[str, list[float]]:
    """Those of both series for one probe: the root of the mean variance over blocks and points."""
    variances = []
    for block in blocks:
        sums = log_dets.partial_sums(block.jacobians, TERMS)
        known = block.residual.linearize(block.x)[1].known_traces(2)
        rest = sums - sums[known - 1] if known else sums
        rest[:known] = 0
        pair = log_dets.deviations(sums, gaussian=True), log_dets.deviations(rest, gaussian=False)
        variances.append(torch.stack(pair).square().mean(-1))
    gaussian, series = torch.stack(variances).mean(0).sqrt().tolist()
    return {"gaussian": gaussian, "series": series}


def drawn(
    blocks: Sequence[Block], repeats: int, generator: torch.Generator
) -> dict[str, list[list[Draws]]]:
    """What each estimator gave, for each number of terms and each block."""
    count = PROBES * repeats

    def of_package(estimator: Estimator) -> list[Draws]:
        return [log_dets.ours(estimator, block.residual, block.x, repeats) for block in blocks]

    gaussian = [
        log_dets.gaussian_series(block.jacobians, TERMS, count, generator) for block in blocks
    ]
    roulette = [log_dets.gaussian_roulette(b.jacobians, 2, count, generator) for b in blocks]
    series = [
        of_package(PowerSeries(terms=n, probes=PROBES, generator=generator))
        for n in range(1, TERMS + 1)
    ]
    return {
        "gaussian": [list(each) for each in zip(*gaussian, strict=True)],
        "series": series,
        "residual flows": [roulette],
        "roulette": [of_package(RussianRoulette(probes=PROBES, generator=generator))],
    }


def tails(blocks: Sequence[Block], seed: int) -> list[Tail]:
    """The series that stop by a certified bound: means over the blocks, the tightest of all."""
    found = []
    for tolerance in TOLERANCES:
        each = [
            log_dets.certified_tail(block.residual, block.x, tolerance, PROBES, seed)
            for block in blocks
        ]
        terms, bias, stated = (
            mean(values)
            for values in zip(*((t.terms, t.bias, t.stated) for t in each), strict=True)
        )
        found.append(Tail(tolerance, terms, bias, stated, max(t.tightest for t in each)))
    return found
