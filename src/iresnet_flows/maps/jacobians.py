"""Jacobians of maps as products that nobody has to write out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor

from iresnet_flows.maps.contract import Rebuilt
from iresnet_flows.maps.linear import LinearMap
from iresnet_flows.maps.traces import cheap_traces, one_layer_traces, two_layer_trace
from iresnet_flows.pullback import pull_back

__all__ = [
    "ChainJacobian",
    "Jacobian",
    "MatrixJacobian",
    "add_up",
    "gather",
    "spread",
]


class Jacobian(Rebuilt):
    """The square Jacobians J of a map at a batch of B points; everything is differentiable.

    Vectors have the shape ``(p, B, *event)``, with any number p of them at each point.

    Example:
        >>> import torch
        >>> from iresnet_flows.maps import FunctionMap
        >>> _, jacobian = FunctionMap(torch.square).linearize(torch.tensor([[1.0, 2.0]]))
        >>> jacobian.apply(torch.ones(1, 1, 2))
        tensor([[[2., 4.]]])
    """

    @property
    @abstractmethod
    def batch_event(self) -> tuple[int, ...]:
        """The shape ``(B, *event)`` of the points."""

    def features(self) -> int:
        """The number d of elements of a sample."""
        return math.prod(self.batch_event[1:])

    @abstractmethod
    def apply(self, v: Tensor) -> Tensor:
        """J v."""

    @abstractmethod
    def apply_transposed(self, w: Tensor) -> Tensor:
        """J^T w."""

    @abstractmethod
    def take(self, rows: Tensor) -> Jacobian:
        """J for some of the rows of the batch, by their indices."""

    def known_traces(self, count: int) -> int:
        """How many of the first `count` traces of powers cost no more than a product or so."""
        return 0

    def traces(self, count: int) -> tuple[Tensor, ...]:
        """Those traces: tr J, tr J^2, ..., each (B,)."""
        return ()

    def dense(self) -> Tensor:
        """J as matrices (B, d, d), at the price of d products."""
        return as_matrices(self.apply(self.basis()))

    def basis(self) -> Tensor:
        """The d unit vectors, ``(d, B, *event)``, or ``(d, 1, *event)`` for all rows."""
        batch, *event = self.batch_event
        d = self.features()
        eye = torch.eye(d, dtype=self.tensors[0].dtype, device=self.tensors[0].device)
        return eye.reshape(d, 1, *event).expand(d, batch, *event)

    def blocks(self) -> Tensor:
        """The square blocks (B, n, r, r) on the diagonal of J, outside of which it is zero."""
        return self.dense().unsqueeze(1)

    def core(self) -> Tensor:
        """Blocks M (B, n, r, r) of the least r whose det(I + M) multiply, and tr M add, to J's."""
        return self.blocks()

    def rank(self) -> int:
        """The size r of the core."""
        return self.features()

    def narrows(self) -> bool:
        """Whether the core is another matrix than J, or several."""
        return False

    def dense_in_steps(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        """J as matrices, and what of their computation `cotangents` can use for the `basis`."""
        return self.dense(), ()

    def cotangents(
        self, w: Tensor, v: Tensor, steps: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor | None, ...]:
        r"""The gradient of :math:`\sum w^\top J v` in each of the tensors, None in indices.

        Arguments:
            w: The vectors on the left.
            v: Those on the right.
            steps: What `dense_in_steps` gave, if v is the basis.
        """
        rebuild = self.rebuild
        return pull_back(lambda *t: rebuild(*t).apply(v), self.tensors, w)


def as_matrices(columns: Tensor) -> Tensor:
    """Matrices (B, d, r) with these r columns, (r, B, *event)."""
    return columns.flatten(2).permute(1, 2, 0)


@dataclass(frozen=True)
class ChainJacobian(Jacobian):
    r"""The Jacobian :math:`J = W_L D_{L-1} W_{L-1} \cdots D_1 W_1` of a perceptron.

    :math:`D_i` holds the slopes of the activation after layer i: it sends each of the
    :math:`h_i` entries, or channels, to its k features.

    Arguments:
        maps: The linear maps :math:`W_i`, two at least.
        slopes: The derivatives in :math:`D_i`, with shapes (B, k, h_i, *space), one fewer.
    """

    maps: tuple[LinearMap, ...]
    slopes: tuple[Tensor, ...]

    @property
    def batch_event(self) -> tuple[int, ...]:
        batch, _, _, *space = self.slopes[0].shape
        return batch, self.maps[0].weight.shape[1], *space

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return *(m.weight for m in self.maps), *self.slopes

    @property
    def rebuild(self) -> Callable[..., ChainJacobian]:
        return partial(assemble, type(self), tuple(type(m) for m in self.maps))

    def take(self, rows: Tensor) -> ChainJacobian:
        return type(self)(self.maps, tuple(s[rows] for s in self.slopes))

    def basis(self) -> Tensor:
        # One row stands for all: the first map is the same at every point.
        d, (_, *event) = self.features(), self.batch_event
        like = self.tensors[0]
        return torch.eye(d, dtype=like.dtype, device=like.device).reshape(d, 1, *event)

    def apply(self, v: Tensor) -> Tensor:
        return self.apply_in_steps(v)[0]

    def dense_in_steps(self) -> tuple[Tensor, tuple[Tensor, ...]]:
        columns, steps = self.apply_in_steps(self.basis())
        return as_matrices(columns), steps

    def apply_in_steps(self, v: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """J v, and the entries of the hidden layers on the way."""
        entries = []
        for linear, slopes in zip(self.maps, self.slopes, strict=False):
            entries.append(linear(v))
            v = spread(slopes, entries[-1])
        return self.maps[-1](v), tuple(entries)

    def apply_transposed(self, w: Tensor) -> Tensor:
        for slopes, linear in zip(self.slopes[::-1], self.maps[:0:-1], strict=True):
            w = gather(slopes, linear.transposed(w))
        return self.maps[0].transposed(w)

    def cotangents(
        self, w: Tensor, v: Tensor, steps: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, ...]:
        entries = steps or self.apply_in_steps(v)[1]
        weights, slopes_bar = [], []
        layers = zip(self.maps[:0:-1], self.slopes[::-1], entries[::-1], strict=True)
        for linear, slopes, z in layers:
            weights.append(linear.cotangent(w, spread(slopes, z)))
            w = linear.transposed(w).unflatten(2, slopes.shape[1:3])
            slopes_bar.append(add_up(w * z.unsqueeze(2), 0))
            w = add_up(w * slopes, 2)
        w = w if v.shape[1] == w.shape[1] else w.sum(1, keepdim=True)
        weights.append(self.maps[0].cotangent(w, v))
        return *weights[::-1], *slopes_bar[::-1]


def assemble(
    kind: type[ChainJacobian], maps: Sequence[Callable[[Tensor], LinearMap]], *tensors: Tensor
) -> ChainJacobian:
    weights, slopes = tensors[: len(maps)], tensors[len(maps) :]
    return kind(tuple(m(w) for m, w in zip(maps, weights, strict=True)), slopes)


def spread(slopes: Tensor, v: Tensor) -> Tensor:
    """D v: each entry to its k features."""
    return (slopes * v.unsqueeze(2)).flatten(2, 3)


def gather(slopes: Tensor, w: Tensor) -> Tensor:
    """D^T w: each k features to their entry."""
    return add_up(slopes * w.unflatten(2, slopes.shape[1:3]), 2)


def add_up(values: Tensor, dim: int) -> Tensor:
    """The sum over a dimension that is mostly 1 or 2, where `sum` takes twice as long."""
    parts = values.unbind(dim)
    return reduce(torch.add, parts) if len(parts) <= 4 else values.sum(dim)


@dataclass(frozen=True)
class MatrixJacobian(ChainJacobian):
    """The `ChainJacobian` of a multilayer perceptron, all of whose maps are matrices."""

    def known_traces(self, count: int) -> int:
        return min(count, cheap_traces(len(self.slopes)))

    def traces(self, count: int) -> tuple[Tensor, ...]:
        known = self.known_traces(count)
        if not known:
            return ()

        first, *middle, last = (m.weight for m in self.maps)
        closing = first @ last
        if not middle:
            return one_layer_traces(closing, self.slopes[0].flatten(1), known)

        inner, outer = (s.flatten(1) for s in self.slopes)
        return (two_layer_trace(closing, middle[0], inner, outer),)

    def core(self) -> Tensor:
        # Sylvester: det(I + AB) = det(I + BA), so that the chain may be cut where it is narrowest.
        if not self.narrows():
            return self.blocks()

        cut = 1 + self.entries().index(self.rank())
        matrices = [m.weight for m in self.maps]
        around = [*matrices[cut:-1], matrices[0] @ matrices[-1], *matrices[1:cut]]
        slopes = self.slopes[cut - 1 :] + self.slopes[: cut - 1]
        core = merged(around[0], slopes[0])
        for slope, weight in zip(slopes[1:], around[1:], strict=True):
            core = onto(weight, slope, core)
        return core.unsqueeze(1)

    def rank(self) -> int:
        return min(self.features(), *self.entries())

    def narrows(self) -> bool:
        # Of two cuts of the same size that within costs less: the outer matrices are one.
        return min(self.entries()) <= self.features()

    def entries(self) -> list[int]:
        """The widths of the hidden layers."""
        return [s.shape[2] for s in self.slopes]


def merged(weight: Tensor, slopes: Tensor) -> Tensor:
    """The matrices W D of each sample, (B, m, h), for W with shape (m, k h)."""
    first, *others = weight.unflatten(-1, slopes.shape[1:3]).unbind(1)
    result = first * slopes[:, :1]
    for k, block in enumerate(others, start=1):
        result = torch.addcmul(result, block, slopes[:, k : k + 1])
    return result


def onto(weight: Tensor, slopes: Tensor, matrices: Tensor) -> Tensor:
    """W D M for matrices M (B, h, r)."""
    if len(weight) <= 2 * matrices.shape[-1]:
        return merged(weight, slopes) @ matrices
    # A wide W D of each sample would take more room than the columns of M.
    columns = spread(slopes, matrices.permute(2, 0, 1)) @ weight.mT
    return columns.permute(1, 2, 0)
