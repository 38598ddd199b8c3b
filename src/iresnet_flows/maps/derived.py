"""Maps and Jacobians that are made from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from iresnet_flows.maps.contract import Map, Rebuilt
from iresnet_flows.maps.jacobians import Jacobian

__all__ = ["Linear", "Negative", "Transposed"]

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Derived(Jacobian):
    """Jacobians that depend on what others depend on."""

    jacobian: Jacobian

    @property
    def batch_event(self) -> tuple[int, ...]:
        return self.jacobian.batch_event

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.jacobian.tensors

    @property
    def rebuild(self) -> Callable[..., Derived]:
        return partial(derive, type(self), self.jacobian.rebuild)

    def take(self, rows: Tensor) -> Derived:
        return type(self)(self.jacobian.take(rows))


def derive(kind: Callable[[Any], Kind], rebuild: Callable[..., Any], *tensors: Tensor) -> Kind:
    return kind(rebuild(*tensors))


class Transposed(Derived):
    """The transposed Jacobians."""

    def apply(self, v: Tensor) -> Tensor:
        return self.jacobian.apply_transposed(v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        return self.jacobian.apply(w)

    def blocks(self) -> Tensor:
        return self.jacobian.blocks().mT


class Negated(Derived):
    """The Jacobians with the other sign."""

    def apply(self, v: Tensor) -> Tensor:
        return -self.jacobian.apply(v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        return -self.jacobian.apply_transposed(w)

    def blocks(self) -> Tensor:
        return -self.jacobian.blocks()


@dataclass(frozen=True)
class Negative(Rebuilt):
    """The map x -> -g(x)."""

    g: Map

    def __call__(self, x: Tensor) -> Tensor:
        return -self.g(x)

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        value, jacobian = self.g.linearize(x)
        return -value, Negated(jacobian)

    def take(self, rows: Tensor) -> Negative:
        return Negative(self.g.take(rows))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.g.tensors

    @property
    def rebuild(self) -> Callable[..., Negative]:
        return partial(derive, Negative, self.g.rebuild)


@dataclass(frozen=True)
class Linear(Rebuilt):
    """The linear map v -> J v of vectors (B, *event)."""

    jacobian: Jacobian

    def __call__(self, x: Tensor) -> Tensor:
        return self.jacobian.apply(x.unsqueeze(0)).squeeze(0)

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        return self(x), self.jacobian

    def take(self, rows: Tensor) -> Linear:
        return Linear(self.jacobian.take(rows))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.jacobian.tensors

    @property
    def rebuild(self) -> Callable[..., Linear]:
        return partial(derive, Linear, self.jacobian.rebuild)
