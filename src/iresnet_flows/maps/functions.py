"""Maps of which nothing is known but how to call them, with Jacobians by `torch.func`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from iresnet_flows.maps.contract import Rebuilt, require_closed
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.pullback import Pull, pull_back, vjp

__all__ = ["FunctionJacobian", "FunctionMap"]

Call = Callable[..., Tensor]

COPIES = 4096  # the samples of a pass for a dense Jacobian


@dataclass(frozen=True)
class FunctionMap(Rebuilt):
    """A function of x, with its other arguments in place, that treats each sample alone.

    Arguments:
        call: The function, called with x, the arguments for each row, and the others; it holds no
            tensor that a gradient is asked for.
        rows: Its arguments that have a row for each sample.
        others: Its arguments that are shared by the samples.

    Example:
        >>> import torch
        >>> from iresnet_flows.maps import FunctionMap
        >>> value, jacobian = FunctionMap(torch.sin).linearize(torch.zeros(1, 2))
        >>> jacobian.dense()
        tensor([[[1., 0.],
                 [0., 1.]]])
    """

    call: Call
    rows: tuple[Tensor, ...] = ()
    others: tuple[Tensor, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        return self.call(x, *self.rows, *self.others)

    def linearize(self, x: Tensor) -> tuple[Tensor, FunctionJacobian]:
        """The value at x and the Jacobian there, from one pass."""
        if torch.is_grad_enabled():
            require_closed(self, x)
        jacobian = FunctionJacobian(self.call, x, self.rows, self.others)
        return jacobian.value(), jacobian

    def take(self, rows: Tensor) -> FunctionMap:
        return replace(self, rows=tuple(t[rows] for t in self.rows))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *self.rows, *self.others

    @property
    def rebuild(self) -> Callable[..., FunctionMap]:
        return partial(fill, replace(self, rows=(), others=()), len(self.rows))


def fill(empty: FunctionMap, count: int, *tensors: Tensor) -> FunctionMap:
    return replace(empty, rows=tensors[:count], others=tensors[count:])


@dataclass(frozen=True)
class FunctionJacobian(Jacobian):
    """The Jacobian of a `FunctionMap` at x, by reverse passes alone, which every operation has.

    Several vectors for each sample are one vector for each of several copies of it, so that they
    share a pass whatever the function consists of. The forward pass of transposed products is
    kept, and shared by them.
    """

    call: Call
    x: Tensor
    rows: tuple[Tensor, ...]
    others: tuple[Tensor, ...]
    passes: dict[tuple[int, bool], tuple[Tensor, Pull]] = field(init=False, default_factory=dict)

    @property
    def batch_event(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return self.x, *self.rows, *self.others

    @property
    def rebuild(self) -> Callable[..., FunctionJacobian]:
        return partial(assemble, self.call, len(self.rows))

    def value(self) -> Tensor:
        """The value at x."""
        return self.pass_for(1)[0]

    def apply(self, v: Tensor) -> Tensor:
        # J^T w is linear in w, and its own transposed product is J v.
        def transposed(w: Tensor) -> Tensor:
            return self.forward(len(v))[1](w.flatten(0, 1))[0].reshape(v.shape)

        return vjp(transposed, torch.zeros_like(v))[1](v)[0]

    def apply_transposed(self, w: Tensor) -> Tensor:
        return self.pass_for(len(w))[1](w.flatten(0, 1))[0].reshape(w.shape)

    def dense(self) -> Tensor:
        """J as matrices (B, d, d), from one pass for some thousand copies of the samples."""
        chunks = self.basis().split(max(1, COPIES // max(1, len(self.x))))
        passes = (self.forward(len(w))[1](w.flatten(0, 1))[0].reshape(w.shape) for w in chunks)
        return torch.cat(list(passes)).flatten(2).transpose(0, 1)

    def cotangents(
        self, w: Tensor, v: Tensor, steps: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor | None, ...]:
        rebuild = self.rebuild
        return pull_back(lambda *t: rebuild(*t).apply_transposed(w), self.tensors, v)

    def take(self, rows: Tensor) -> FunctionJacobian:
        return replace(self, x=self.x[rows], rows=tuple(t[rows] for t in self.rows))

    def forward(self, count: int) -> tuple[Tensor, Pull]:
        """The values at that many copies of x, and what pulls vectors back from them."""
        x, *rows = (t.expand(count, *t.shape).flatten(0, 1) for t in (self.x, *self.rows))
        return vjp(self.call, x, *rows, *self.others)

    def pass_for(self, count: int) -> tuple[Tensor, Pull]:
        """The forward pass of that many copies, kept; one with gradient also serves without."""
        recorded = torch.is_grad_enabled()
        for key in {(count, True), (count, recorded)}:
            if key in self.passes:
                return self.passes[key]
        self.passes[count, recorded] = self.forward(count)
        return self.passes[count, recorded]


def assemble(call: Call, count: int, x: Tensor, *rest: Tensor) -> FunctionJacobian:
    return FunctionJacobian(call, x, rest[:count], rest[count:])
