"""Where an exact log-det costs as much as a series, and Newton as much as Anderson.

Run as ``python docs/studies/crossovers.py``; it prints the table of docs/choose.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
from options import Options

from iresnet_flows import (
    Anderson,
    Exact,
    FixedPoint,
    InvertibleResidualBlock,
    LipschitzMLP,
    Newton,
    RussianRoulette,
)
from iresnet_flows.inverse import Solver
from iresnet_flows.logdet import Estimator

ROWS = 256
WIDTHS = (64, 128, 256)
DIMENSIONS = (1, 2, 4, 8, 16, 32, 64, 128)
STEPS = 60
ROUNDS = 9


def main(given: Sequence[str] | None = None) -> None:
    Options(description=__doc__).parse_args(given)
    torch.set_num_threads(1)
    print(f"two hidden layers, csin, L = 0.9, {ROWS} rows, one thread, milliseconds")
    print()
    print(
        "| width | d | step, exact | step, roulette | log-det, exact | log-det, roulette "
        "| inverse, Anderson | inverse, Newton | inverse, fixed point |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for width in WIDTHS:
        for d in DIMENSIONS:
            times = " | ".join(f"{t:.1f}" for t in row(width, d))
            print(f"| {width} | {d} | {times} |", flush=True)


def row(width: int, d: int) -> list[float]:
    """The times of all that is compared, alternated."""
    torch.manual_seed(0)
    x = 2 * torch.randn(ROWS, d) @ torch.linalg.qr(torch.randn(d, d)).Q
    block = trained(width, d, x)
    y = block.transform(x).detach()
    return medians(
        [
            step(block, x, Exact()),
            step(block, x, RussianRoulette()),
            measure(block, x, Exact()),
            measure(block, x, RussianRoulette(probes=4)),
            *(invert(block, y, solver) for solver in (Anderson(), Newton(), FixedPoint())),
        ]
    )


def trained(width: int, d: int, x: torch.Tensor) -> InvertibleResidualBlock:
    block = InvertibleResidualBlock(LipschitzMLP(d, (width, width)))
    optimiser = torch.optim.Adam(block.parameters(), lr=1e-2)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss(block, x).backward()
        optimiser.step()
    return block


def loss(block: InvertibleResidualBlock, x: torch.Tensor) -> torch.Tensor:
    y, logabsdet = block(x)
    return (y.square().sum(-1) / 2 - logabsdet).mean()


def step(
    block: InvertibleResidualBlock, x: torch.Tensor, log_det: Estimator
) -> Callable[[], None]:
    def run() -> None:
        block.log_det = log_det
        loss(block, x).backward()
        block.zero_grad()

    return run


def measure(
    block: InvertibleResidualBlock, x: torch.Tensor, log_det: Estimator
) -> Callable[[], None]:
    def run() -> None:
        block.log_det = log_det
        with torch.no_grad():
            block.log_abs_det(x)

    return run


def invert(block: InvertibleResidualBlock, y: torch.Tensor, solver: Solver) -> Callable[[], None]:
    def run() -> None:
        block.solver = solver
        with torch.no_grad():
            block.invert(y)

    return run


def medians(runs: list[Callable[[], None]]) -> list[float]:
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken[1:]) for taken in times]


if __name__ == "__main__":
    main()
