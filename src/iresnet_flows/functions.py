"""Maps of which nothing is known but how to call them, with Jacobians by `torch.func`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor

from iresnet_flows.jacobians import Jacobian

__all__ = ["FunctionJacobian", "FunctionMap"]

Call = Callable[..., Tensor]


@dataclass(frozen=True)
class FunctionMap:
    """A function of x, with its other arguments in place, that treats each sample alone.

    Arguments:
        call: The function, called with x, the arguments for each row, and the others; it holds no
            tensor that a gradient is asked for.
        rows: Its arguments that have a row for each sample.
        others: Its arguments that are shared by the samples.
    """

    call: Call
    rows: tuple[Tensor, ...] = ()
    others: tuple[Tensor, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        return self.call(x, *self.rows, *self.others)

    def linearize(self, x: Tensor) -> tuple[Tensor, FunctionJacobian]:
        jacobian = FunctionJacobian(self.call, x, self.rows, self.others)
        return self(x), jacobian

    def take(self, rows: Tensor) -> FunctionMap:
        return replace(self, rows=tuple(t[rows] for t in self.rows))

    def to(self, dtype: torch.dtype) -> FunctionMap:
        rows, others = (tuple(cast(t, dtype) for t in ts) for ts in (self.rows, self.others))
        return replace(self, rows=rows, others=others)


@dataclass(frozen=True)
class FunctionJacobian(Jacobian):
    """The Jacobian of a `FunctionMap` at x; products with its transpose share one pass."""

    call: Call
    x: Tensor
    rows: tuple[Tensor, ...]
    others: tuple[Tensor, ...]

    @property
    def batch_event(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, *self.rows, *self.others

    @property
    def rebuild(self) -> Callable[..., FunctionJacobian]:
        return partial(assemble, self.call, len(self.rows))

    def at(self, x: Tensor) -> Tensor:
        return self.call(x, *self.rows, *self.others)

    @cached_property
    def pull(self) -> Callable[[Tensor], tuple[Tensor]]:
        return torch.func.vjp(self.at, self.x)[1]

    @cached_property
    def push(self) -> Callable[[Tensor], tuple[Tensor]]:
        # J v is the gradient of w^T J v in w: two reverse passes, which every function has.
        return torch.func.vjp(lambda w: self.pull(w)[0], torch.zeros_like(self.x))[1]

    def apply(self, v: Tensor) -> Tensor:
        return torch.stack([self.push(t)[0] for t in v])

    def apply_transposed(self, w: Tensor) -> Tensor:
        return torch.stack([self.pull(t)[0] for t in w])

    def take(self, rows: Tensor) -> FunctionJacobian:
        return replace(self, x=self.x[rows], rows=tuple(t[rows] for t in self.rows))

    def to(self, dtype: torch.dtype) -> FunctionJacobian:
        return self.rebuild(*(cast(t, dtype) for t in self.tensors))


def assemble(call: Call, count: int, x: Tensor, *rest: Tensor) -> FunctionJacobian:
    return FunctionJacobian(call, x, rest[:count], rest[count:])


def cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
