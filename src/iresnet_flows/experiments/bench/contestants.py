"""What all contestants build alike, and our own blocks among them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.lipschitz import LipschitzMLP
from iresnet_flows.logdet import Estimator

__all__ = ["EQUAL", "OURS", "Block", "Contestant", "Net", "OurBlock", "ours"]


@dataclass(frozen=True)
class Net:
    """A residual network that every library can build.

    Arguments:
        features: The dimension d.
        hidden: The widths of the hidden layers.
        lipschitz: The bound of a block's whole branch.
        blocks: How many blocks follow each other.
    """

    features: int
    hidden: tuple[int, ...]
    lipschitz: float = 0.9
    blocks: int = 2

    @property
    def coefficient(self) -> float:
        """The bound of one linear layer."""
        return float(self.lipschitz ** (1 / (len(self.hidden) + 1)))

    def __str__(self) -> str:
        widths = set(self.hidden)
        name = f"{len(self.hidden)}x{self.hidden[0]}" if len(widths) == 1 else str(self.hidden)
        return f"d={self.features}, {name}"


class Block(nn.Module, ABC):
    """One residual block x + g(x) of one library, called as its users call it."""

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x + g(x) and its log-det."""

    @abstractmethod
    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """The x with x + g(x) = y, and a log-det."""

    @abstractmethod
    def residual(self, x: Tensor) -> Tensor:
        """g(x)."""

    @abstractmethod
    def weights(self) -> list[Tensor]:
        """The matrices that g multiplies with at this moment."""

    def precise(self) -> Callable[[Tensor], Tensor]:
        """g in float64, with the weights that are in use."""
        return deepcopy(self).double().residual

    def invert(self, y: Tensor) -> Tensor:
        """What drawing a sample runs; with the log-det where the library has no other way."""
        return self.inverse(y)[0]

    def around(self, g: nn.Module) -> Block | None:
        """The library's block around another network, where it takes any."""
        return None

    def after_step(self) -> None:
        """What the library asks its users to call after each step of an optimiser."""


@dataclass(frozen=True)
class Contestant:
    """A library, or one way to use it.

    Arguments:
        name: How the command line calls it.
        title: How tables call it.
        make: Builds a block.
        note: What a reader of the table must know of it.
        updates: Whether its bound rests on a call after each step.
    """

    name: str
    title: str
    make: Callable[[Net], Block]
    note: str = ""
    updates: bool = False


class OurBlock(Block):
    """The block of this package."""

    def __init__(self, block: InvertibleResidualBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.block(x)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.block.inverse(y)

    def invert(self, y: Tensor) -> Tensor:
        return self.block.invert(y)

    def residual(self, x: Tensor) -> Tensor:
        return self.block.branch(x)

    def precise(self) -> Callable[[Tensor], Tensor]:
        # The bound of a weight is above its norm by rounding errors that float64 has not, so that
        # `double` would give a slightly larger branch.
        return self.block.branch.at().to(torch.float64)

    def weights(self) -> list[Tensor]:
        branch = cast("LipschitzMLP", self.block.branch)
        return [linear.weight for linear in branch.at().maps]


def ours(
    title: str,
    activation: str = "csin",
    log_det: Estimator | None = None,
    memory: Literal["full", "low"] = "full",
) -> Contestant:
    """A variant of our block."""

    def make(net: Net) -> Block:
        branch = LipschitzMLP(net.features, net.hidden, net.lipschitz, activation=activation)
        return OurBlock(InvertibleResidualBlock(branch, log_det, memory=memory))

    return Contestant(title, title, make)


OURS = ours("csin")
EQUAL = replace(
    ours("lipswish", "lipswish"),
    note=(
        "has as many parameters as the others at the same widths; csin hands on two features of "
        "each entry, so that its layers have half as many entries"
    ),
)
