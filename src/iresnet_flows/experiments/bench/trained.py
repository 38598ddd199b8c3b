"""Blocks that were trained on scikit-learn's digits, and the truth about them in float64."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from iresnet_flows.experiments.bench.contestants import Block, Contestant, Net
from iresnet_flows.experiments.bench.flows import build, stepper
from iresnet_flows.experiments.data import load
from iresnet_flows.experiments.seeds import seeded

__all__ = ["Gym", "jacobians", "root"]

BATCH = 256
ITERATIONS = 5000


@dataclass(frozen=True)
class Gym:
    """Trains each contestant once for each bound.

    Arguments:
        net: The network; its features are the first pixels of the digits.
        steps: The steps of Adam.
    """

    net: Net
    steps: int
    blocks: dict[tuple[str, float], Block] = field(default_factory=dict)

    def block(self, contestant: Contestant, bound: float) -> Block:
        """The first block of a flow, in eval mode."""
        key = contestant.title, bound
        if key not in self.blocks:
            self.blocks[key] = self.train(contestant, replace(self.net, lipschitz=bound))
        return self.blocks[key]

    def train(self, contestant: Contestant, net: Net) -> Block:
        flow = build(contestant, net)
        with seeded():
            pool = self.rows
            step = stepper(flow.train(), lambda: pool[torch.randint(len(pool), (BATCH,))])
            for _ in range(self.steps):
                step()
        return flow.each()[0].eval()

    @cached_property
    def rows(self) -> Tensor:
        """The digits' training rows, (N, d)."""
        digits = load("digits")
        rows = digits.prepare(digits.train, torch.Generator().manual_seed(0))
        return rows[:, : self.net.features].contiguous()


@torch.no_grad()
def root(block: Block, y: Tensor) -> Tensor:
    """The x with x + g(x) = y to all digits of float64, for a contraction g, (B, d)."""
    g, y = block.precise(), y.double()
    x = y
    for _ in range(ITERATIONS):
        x, previous = y - g(x), x
        if not (x - previous).abs().max() > 1e-14:
            break
    return x


def jacobians(block: Block, x: Tensor) -> Tensor:
    """The Jacobians of g in float64, (B, d, d), at the price of d backward passes."""
    x = x.detach().double().requires_grad_()
    value = block.precise()(x)
    rows = [torch.autograd.grad(v.sum(), x, retain_graph=True)[0] for v in value.unbind(1)]
    return torch.stack(rows, 1)
