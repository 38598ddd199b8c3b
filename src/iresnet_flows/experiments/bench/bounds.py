"""Whether bounds hold while someone tries to break them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import torch

from iresnet_flows.experiments.bench.contestants import (
    EQUAL,
    OURS,
    Block,
    Contestant,
    Net,
)
from iresnet_flows.experiments.bench.flows import build, mixture
from iresnet_flows.experiments.bench.rows import AtMost, Row
from iresnet_flows.experiments.bench.settings import Settings, Task
from iresnet_flows.experiments.seeds import seeded

__all__ = ["tasks", "worst_excess"]

NET = Net(16, (64, 64), blocks=1)
RATE = 1e-2
BATCH = 64
BLOW = 30.0
VARIANTS = (OURS, EQUAL)


def tasks(settings: Settings, peers: Sequence[Contestant]) -> list[Task]:
    return [Task("bounds", partial(side_by_side, settings.hostile_steps, peers))]


def side_by_side(steps: int, peers: Sequence[Contestant]) -> list[Row]:
    """The worst norm of each, with the calls that its library asks for and without."""
    mine = {v.title: worst_excess(v, steps, called=False) for v in VARIANTS}
    return [
        Row(
            "product of layer norms over the stated bound",
            f"{NET}, {steps} steps at {RATE:g}, weights x {BLOW:g}",
            peer.title if called == peer.updates else f"{peer.title}, no updater",
            title,
            worst_excess(peer, steps, called),
            worst,
            AtMost(1.0, 1.0),
        )
        for peer in peers
        for called in sorted({peer.updates, False}, reverse=True)
        for title, worst in mine.items()
    ]


def worst_excess(contestant: Contestant, steps: int, called: bool) -> float:
    """The largest product of the layers' norms over that of their stated bounds, at any moment.

    Adam drives the differences of g apart, and halfway all weights grow at once.

    Arguments:
        contestant: Whose block.
        steps: The steps of Adam.
        called: Whether what the library asks for after a step is called.
    """
    block = build(contestant, NET).each()[0]
    worst = 0.0
    with seeded():
        x = mixture(NET.features, BATCH)
        optimiser = torch.optim.Adam(block.train().parameters(), RATE)
        for step in range(steps):
            optimiser.zero_grad(set_to_none=True)
            (block.residual(x) - block.residual(x + 0.1)).square().mean().neg().backward()
            optimiser.step()
            if step == steps // 2:
                with torch.no_grad():
                    for parameter in block.parameters():
                        parameter.mul_(BLOW)
            if called:
                block.after_step()
            if step % 10 == 0 or step in (steps // 2, steps - 1):
                worst = max(worst, excess(block))
    return worst


@torch.no_grad()
def excess(block: Block) -> float:
    """That product of its matrices as they are in use, in float64."""
    training = block.training
    block.eval()
    norms = [float(torch.linalg.matrix_norm(w.double(), 2)) for w in block.weights()]
    block.train(training)
    return math.prod(norm / NET.coefficient for norm in norms)
