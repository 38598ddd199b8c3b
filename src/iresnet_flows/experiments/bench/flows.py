"""Stacks of blocks, trained and called alike whatever library they are from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from iresnet_flows.experiments.bench.contestants import Block, Contestant, Net
from iresnet_flows.experiments.seeds import seeded

__all__ = ["Flow", "build", "mixture", "stepper"]

RATE = 2e-3
MODES = 8


class Flow(nn.Module):
    """Blocks in a row that map data to a standard normal."""

    def __init__(self, blocks: list[Block]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # A view, for some blocks ask for the gradient of the very tensor that they are given.
        z, total = x.view_as(x), x.new_zeros(len(x))
        for block in self.each():
            z, log_det = block(z)
            total = total + log_det
        return z, total

    def log_prob(self, x: Tensor) -> Tensor:
        z, log_det = self(x)
        return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1) + log_det

    def sample(self, z: Tensor) -> Tensor:
        """The data that noise z stands for."""
        for block in reversed(self.each()):
            z = block.invert(z.view_as(z))
        return z

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same with log-dets."""
        total = z.new_zeros(len(z))
        for block in reversed(self.each()):
            z, log_det = block.inverse(z.view_as(z))
            total = total + log_det.reshape(-1)
        return z, total

    def after_step(self) -> None:
        for block in self.each():
            block.after_step()

    def each(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))


def build(contestant: Contestant, net: Net) -> Flow:
    """The flow of a contestant, the same in every call."""
    with seeded():
        return Flow([contestant.make(net) for _ in range(net.blocks)])


def stepper(flow: Flow, rows: Callable[[], Tensor]) -> Callable[[], None]:
    """One step of maximum likelihood with Adam, on whatever rows come next."""
    optimiser = torch.optim.Adam(flow.parameters(), RATE)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (-flow.log_prob(rows()).mean()).backward()
        optimiser.step()
        flow.after_step()

    return step


def mixture(features: int, count: int) -> Tensor:
    """Points of a mixture of eight normals with unit variance, (count, d)."""
    generator = torch.Generator().manual_seed(features)
    centres = torch.randn(MODES, features, generator=generator)
    which = torch.randint(MODES, (count,), generator=generator)
    return centres[which] * 0.9 + 0.4 * torch.randn(count, features, generator=generator)
