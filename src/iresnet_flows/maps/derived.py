"""Maps and Jacobians that are made from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from iresnet_flows.maps.jacobians import Jacobian, Map

__all__ = ["Linear", "Negative", "Transposed"]


@dataclass(frozen=True)
class Transposed(Jacobian):
    """The transposed Jacobians."""

    jacobian: Jacobian

    @property
    def batch_event(self) -> tuple[int, ...]:
        return self.jacobian.batch_event

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.jacobian.tensors

    @property
    def rebuild(self) -> Callable[..., Transposed]:
        return partial(transpose, self.jacobian.rebuild)

    def apply(self, v: Tensor) -> Tensor:
        return self.jacobian.apply_transposed(v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        return self.jacobian.apply(w)

    def take(self, rows: Tensor) -> Transposed:
        return Transposed(self.jacobian.take(rows))

    def dense(self) -> Tensor:
        return self.jacobian.dense().mT


def transpose(rebuild: Callable[..., Jacobian], *tensors: Tensor) -> Transposed:
    return Transposed(rebuild(*tensors))


@dataclass(frozen=True)
class Negated(Jacobian):
    """The Jacobians with the other sign."""

    jacobian: Jacobian

    @property
    def batch_event(self) -> tuple[int, ...]:
        return self.jacobian.batch_event

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.jacobian.tensors

    @property
    def rebuild(self) -> Callable[..., Negated]:
        return partial(negate, self.jacobian.rebuild)

    def apply(self, v: Tensor) -> Tensor:
        return -self.jacobian.apply(v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        return -self.jacobian.apply_transposed(w)

    def take(self, rows: Tensor) -> Negated:
        return Negated(self.jacobian.take(rows))

    def dense(self) -> Tensor:
        return -self.jacobian.dense()


def negate(rebuild: Callable[..., Jacobian], *tensors: Tensor) -> Negated:
    return Negated(rebuild(*tensors))


@dataclass(frozen=True)
class Negative:
    """The map x -> -g(x)."""

    g: Map

    def __call__(self, x: Tensor) -> Tensor:
        return -self.g(x)

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        value, jacobian = self.g.linearize(x)
        return -value, Negated(jacobian)

    def take(self, rows: Tensor) -> Negative:
        return Negative(self.g.take(rows))

    def to(self, dtype: torch.dtype) -> Negative:
        return Negative(self.g.to(dtype))


@dataclass(frozen=True)
class Linear:
    """The linear map v -> J v of vectors (B, *event)."""

    jacobian: Jacobian

    def __call__(self, x: Tensor) -> Tensor:
        return self.jacobian.apply(x.unsqueeze(0)).squeeze(0)

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        return self(x), self.jacobian

    def take(self, rows: Tensor) -> Linear:
        return Linear(self.jacobian.take(rows))

    def to(self, dtype: torch.dtype) -> Linear:
        return Linear(self.jacobian.to(dtype))
