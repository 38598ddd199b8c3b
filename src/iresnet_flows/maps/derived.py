"""Maps and Jacobians that are made from others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from iresnet_flows.maps.contract import Map, Rebuilt
from iresnet_flows.maps.jacobians import Jacobian

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Linear", "Negative", "Transposed"]

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Derived(Rebuilt):
    """What is made of one map or of its Jacobians, and depends on what that depends on.

    Arguments:
        source: What it is made of.
    """

    source: Any

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        tensors: tuple[Tensor, ...] = self.source.tensors
        return tensors

    @property
    def rebuild(self) -> Callable[..., Self]:
        return partial(derive, type(self), self.source.rebuild)

    def take(self, rows: Tensor) -> Self:
        return type(self)(self.source.take(rows))


def derive(kind: Callable[[Any], Kind], rebuild: Callable[..., Any], *tensors: Tensor) -> Kind:
    return kind(rebuild(*tensors))


@dataclass(frozen=True)
class DerivedJacobian(Derived, Jacobian):
    """Jacobians that are made of others."""

    source: Jacobian

    @property
    def batch_event(self) -> tuple[int, ...]:
        return self.source.batch_event


class Transposed(DerivedJacobian):
    """The transposed Jacobians."""

    def apply(self, v: Tensor) -> Tensor:
        return self.source.apply_transposed(v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        return self.source.apply(w)

    def blocks(self) -> Tensor:
        return self.source.blocks().mT


class Negated(DerivedJacobian):
    """The Jacobians with the other sign."""

    def apply(self, v: Tensor) -> Tensor:
        return -self.source.apply(v)

    def apply_transposed(self, w: Tensor) -> Tensor:
        return -self.source.apply_transposed(w)

    def blocks(self) -> Tensor:
        return -self.source.blocks()


@dataclass(frozen=True)
class Negative(Derived):
    """The map x -> -g(x)."""

    source: Map

    def __call__(self, x: Tensor) -> Tensor:
        return -self.source(x)

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        value, jacobian = self.source.linearize(x)
        return -value, Negated(jacobian)


@dataclass(frozen=True)
class Linear(Derived):
    """The linear map v -> J v of vectors (B, *event)."""

    source: Jacobian

    def __call__(self, x: Tensor) -> Tensor:
        return self.source.apply(x.unsqueeze(0)).squeeze(0)

    def linearize(self, x: Tensor) -> tuple[Tensor, Jacobian]:
        return self(x), self.source
