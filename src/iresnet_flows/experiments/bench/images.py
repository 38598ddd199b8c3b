"""Blocks of images, beside the only library that has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Literal

import torch
from torch import Tensor

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.experiments.bench.clocks import Times
from iresnet_flows.experiments.bench.contestants import Block, Contestant, OurBlock
from iresnet_flows.experiments.bench.flows import Flow, stepper
from iresnet_flows.experiments.bench.memory import kept_bytes
from iresnet_flows.experiments.bench.peers import NormflowsBlock
from iresnet_flows.experiments.bench.rows import Row, TimesBetter
from iresnet_flows.experiments.bench.settings import Settings, Task
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.lipschitz import LipschitzConvNet

__all__ = ["tasks"]

KERNELS = (3, 1, 3)
VARIANTS: dict[str, tuple[str, Literal["full", "low"]]] = {
    "csin": ("csin", "full"),
    "csin, memory low": ("csin", "low"),
    "lipswish, memory low": ("lipswish", "low"),
}
BATCH = 64


@dataclass(frozen=True)
class ImageNet:
    """A convolutional residual network that both libraries can build.

    Arguments:
        shape: Channels, height and width.
        hidden: The channels of the hidden layers.
        coefficient: The bound of one convolution.
        blocks: How many blocks follow each other.
    """

    shape: tuple[int, int, int]
    hidden: tuple[int, int]
    coefficient: float = 0.9
    blocks: int = 2

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        return f"images {shape}, {len(self.hidden)}x{self.hidden[0]} channels, batch {BATCH}"

    def ours(self, activation: str, memory: Literal["full", "low"]) -> Block:
        lipschitz = self.coefficient ** len(KERNELS)
        channels = self.shape[0]
        branch = LipschitzConvNet(channels, self.hidden, KERNELS, lipschitz, activation=activation)
        return OurBlock(InvertibleResidualBlock(branch, memory=memory))

    def normflows(self) -> Block:
        widths = [self.shape[0], *self.hidden, self.shape[0]]
        nets = import_module("normflows").nets
        branch = nets.LipschitzCNN(widths, list(KERNELS), lipschitz_const=self.coefficient)
        return NormflowsBlock(branch)

    def rows(self) -> Tensor:
        """Images of normal noise, each smooth."""
        noise = torch.randn(BATCH, *self.shape)
        smooth = torch.nn.functional.avg_pool2d(noise, 3, stride=1, padding=1)
        return smooth + 0.3 * noise


NETS = (
    ImageNet((4, 14, 14), (32, 32)),
    ImageNet((16, 7, 7), (64, 64)),
    ImageNet((16, 16, 16), (64, 64)),
)


def tasks(settings: Settings, peers: Sequence[Contestant]) -> list[Task]:
    """Nothing without normflows, for no other library has such blocks."""
    if not any(peer.name == "normflows" for peer in peers):
        return []
    return [Task(f"{net}", partial(side_by_side, settings, net)) for net in NETS]


def side_by_side(settings: Settings, net: ImageNet) -> list[Row]:
    """Training steps in one loop, and what a block keeps for its backward pass."""
    with seeded():
        makers = {"normflows": net.normflows} | {
            title: partial(net.ours, *variant) for title, variant in VARIANTS.items()
        }
        flows = {
            title: Flow([make() for _ in range(net.blocks)]).train()
            for title, make in makers.items()
        }
        runs = {title: stepper(flow, net.rows) for title, flow in flows.items()}
        for run in runs.values():
            for _ in range(settings.warm_steps // 4):
                run()
        times = settings.clock.alternate(runs)
        kept = {
            title: kept_bytes(flow.each()[0], net.rows().requires_grad_()) / 1e3
            for title, flow in flows.items()
        }
    return rows_of(net, times, kept)


def rows_of(net: ImageNet, times: Times, kept: dict[str, float]) -> list[Row]:
    rows = []
    for variant in VARIANTS:
        rows += [
            Row(
                "training step (ms)",
                str(net),
                "normflows",
                variant,
                times.median("normflows"),
                times.median(variant),
                TimesBetter(1.5, 2.5),
                len(times.rounds[variant]),
                spread=times.spread("normflows", variant),
            ),
            Row(
                "kept for the backward pass (kB)",
                str(net),
                "normflows",
                variant,
                kept["normflows"],
                kept[variant],
                TimesBetter(2.0, 4.0),
            ),
        ]
    return rows
