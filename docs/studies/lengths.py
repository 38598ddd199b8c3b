"""How many terms roulette should take for certain: the noise of a step's gradient, and its time.

Run as ``python docs/studies/lengths.py``; it prints the table of docs/choose.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import cast

import torch

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


def main() -> None:
    torch.set_num_threads(1)
    print(f"flows of two blocks, L = 0.9, {ROWS} rows, one thread; {DRAWS} gradients each")
    print()
    print("| network | terms | noise of the estimate | noise of the batch | step (ms) | score |")
    print("|---|---|---|---|---|---|")
    for net in NETS:
        for row in rows(net):
            print(f"| {' | '.join(row)} |", flush=True)


def rows(net: Net) -> list[list[str]]:
    """A row for each number of terms; a score is a step's whole variance times its time."""
    torch.manual_seed(0)
    pool = mixture(net.features, POOL)
    flow = trained(net, pool)
    estimators = {str(n): RussianRoulette(terms=n) for n in TERMS} | {"the whole series": WHOLE}
    of_batches = noise(flow, {"": WHOLE}, partial(batch, pool))[""][0]
    found = noise(flow, estimators, lambda: pool[:ROWS])
    scores = {name: (variance + of_batches) * ms for name, (variance, ms) in found.items()}
    best = min(scores.values())
    return [
        [
            str(net),
            name,
            f"{variance:.3g}",
            f"{of_batches:.3g}",
            f"{ms:.1f}",
            f"{scores[name] / best:.2f}",
        ]
        for name, (variance, ms) in found.items()
    ]


def trained(net: Net, pool: torch.Tensor) -> Flow:
    flow = build(ours("ours"), net).train()
    step = stepper(flow, partial(batch, pool))
    for _ in range(STEPS):
        step()
    return flow


def batch(pool: torch.Tensor) -> torch.Tensor:
    return pool[torch.randint(len(pool), (ROWS,))]


def noise(
    flow: Flow, estimators: Mapping[str, Estimator], draw: Callable[[], torch.Tensor]
) -> dict[str, tuple[float, float]]:
    """The variance of gradients, summed over the parameters, and the time of one, alternated."""
    gradients: dict[str, list[torch.Tensor]] = {name: [] for name in estimators}
    times: dict[str, list[float]] = {name: [] for name in estimators}
    for _ in range(DRAWS):
        for name, log_det in estimators.items():
            for block in flow.each():
                cast("OurBlock", block).block.log_det = log_det
            start = time.perf_counter()
            loss = -flow.log_prob(draw()).mean()
            gradient = torch.autograd.grad(loss, list(flow.parameters()))
            times[name].append(1e3 * (time.perf_counter() - start))
            gradients[name].append(torch.cat([g.flatten() for g in gradient]))
    return {
        name: (float(torch.stack(drawn).var(0).sum()), statistics.median(times[name]))
        for name, drawn in gradients.items()
    }


if __name__ == "__main__":
    main()
