"""How many terms roulette should take for certain: the noise of a step's gradient, and its time.

Run as ``python docs/studies/lengths.py``; it prints the table of docs/choose.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from options import Options

from iresnet_flows import PowerSeries, RussianRoulette
from iresnet_flows.experiments.bench.contestants import Net, OurBlock, ours
from iresnet_flows.experiments.bench.flows import Flow, build, mixture, stepper
from iresnet_flows.logdet import Estimator

NETS = (Net(16, (128,) * 2), Net(64, (128,) * 2), Net(16, (128,) * 3), Net(64, (256,) * 3))
TERMS = (1, 2, 3, 4, 5, 6, 8)
WHOLE = PowerSeries(tolerance=1e-3)
ROWS = 256
POOL = 4096
STEPS = 300
DRAWS = 60


def main(given: Sequence[str] | None = None) -> None:
    Options(description=__doc__).parse_args(given)
    torch.set_num_threads(1)
    print(
        f"flows of two blocks, L = 0.9, {ROWS} rows, one thread, {DRAWS} gradients each: "
        "noise of the estimate, milliseconds of a step, and a step's whole noise times its time "
        "over the least"
    )
    print()
    print(f"| network | noise of the batch | {' | '.join(map(str, TERMS))} | the whole series |")
    print("|" + "---|" * (len(TERMS) + 3))
    for net in NETS:
        print(f"| {' | '.join(row(net))} |", flush=True)


def row(net: Net) -> list[str]:
    torch.manual_seed(0)
    pool = mixture(net.features, POOL)
    flow = trained(net, pool)
    estimators: list[Estimator] = [*(RussianRoulette(terms=n) for n in TERMS), WHOLE]
    ((of_batches, _),) = noise(flow, [WHOLE], partial(batch, pool))
    found = noise(flow, estimators, lambda: pool[:ROWS])
    scores = [(variance + of_batches) * ms for variance, ms in found]
    cells = [
        f"{variance:.3g}, {ms:.1f}, {score / min(scores):.2f}"
        for (variance, ms), score in zip(found, scores, strict=True)
    ]
    return [str(net), f"{of_batches:.3g}", *cells]


def trained(net: Net, pool: torch.Tensor) -> Flow:
    flow = build(ours("ours"), net).train()
    step = stepper(flow, partial(batch, pool))
    for _ in range(STEPS):
        step()
    return flow


def batch(pool: torch.Tensor) -> torch.Tensor:
    return pool[torch.randint(len(pool), (ROWS,))]


def noise(
    flow: Flow, estimators: Sequence[Estimator], draw: Callable[[], torch.Tensor]
) -> list[tuple[float, float]]:
    """The variance of gradients, summed over the parameters, and the time of one, alternated."""
    gradients: list[list[torch.Tensor]] = [[] for _ in estimators]
    times: list[list[float]] = [[] for _ in estimators]
    for _ in range(DRAWS):
        for log_det, drawn, taken in zip(estimators, gradients, times, strict=True):
            for block in flow.each():
                cast("OurBlock", block).block.log_det = log_det
            start = time.perf_counter()
            loss = -flow.log_prob(draw()).mean()
            gradient = torch.autograd.grad(loss, list(flow.parameters()))
            taken.append(1e3 * (time.perf_counter() - start))
            drawn.append(torch.cat([g.flatten() for g in gradient]))
    return [
        (float(torch.stack(drawn).var(0).sum()), statistics.median(taken))
        for drawn, taken in zip(gradients, times, strict=True)
    ]


if __name__ == "__main__":
    main()
