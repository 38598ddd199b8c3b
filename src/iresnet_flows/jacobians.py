"""Jacobians of neural maps as products that nobody has to write out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["ChainJacobian", "Jacobian"]


class Jacobian(Protocol):
    """The Jacobians J of a map at a batch of points; everything is differentiable."""

    def apply(self, v: Tensor) -> Tensor:
        """J v for vectors of shape (*, B, d)."""

    def apply_transposed(self, w: Tensor) -> Tensor:
        """J^T w for vectors of shape (*, B, d)."""

    def trace(self) -> Tensor | None:
        """tr J, with shape (B,), where it costs about one product; else None."""

    def core(self) -> Tensor:
        """Matrices M of the least size, (B, r, r), with det(I + M) = det(I + J), tr M = tr J."""

    def rank(self) -> int:
        """The size r of the core, and a bound of J's rank."""


@dataclass(frozen=True)
class ChainJacobian:
    r"""The Jacobian :math:`J = W_L D_{L-1} W_{L-1} \cdots D_1 W_1` of a multilayer perceptron.

    :math:`D_i` holds the slopes of the activation after layer i: it sends each of the
    :math:`h_i` entries to its k features.

    Arguments:
        weights: The matrices :math:`W_i`, with shapes (h_i, k h_{i-1}), two at least.
        slopes: The derivatives in :math:`D_i`, with shapes (B, k, h_i), one fewer.
    """

    weights: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...]

    def apply(self, v: Tensor) -> Tensor:
        v = v @ self.weights[0].mT
        for slopes, weight in zip(self.slopes, self.weights[1:], strict=True):
            v = (slopes * v.unsqueeze(-2)).flatten(-2) @ weight.mT
        return v

    def apply_transposed(self, w: Tensor) -> Tensor:
        for slopes, weight in zip(self.slopes[::-1], self.weights[:0:-1], strict=True):
            w = (slopes * (w @ weight).unflatten(-1, slopes.shape[-2:])).sum(-2)
        return w @ self.weights[0]

    def trace(self) -> Tensor | None:
        first, *middle, last = self.weights
        closing = first @ last
        if not middle:
            return (self.slopes[0] * diagonals(closing, self.slopes[0])).sum((-2, -1))
        if len(middle) > 1:
            return None

        # tr(W3 D2 W2 D1 W1) = d2^T (W2 o (W1 W3)^T) d1, for each pair of copies.
        inner, outer = self.slopes
        kernel = middle[0].tile(outer.shape[-2], 1) * closing.mT.tile(1, inner.shape[-2])
        return ((inner.flatten(-2) @ kernel.mT) * outer.flatten(-2)).sum(-1)

    def core(self) -> Tensor:
        # Sylvester: det(I + AB) = det(I + BA), so that the chain may be cut where it is narrowest.
        # Rows are pushed through it, for they share one product with the weight over the batch.
        cut = self.cut()
        if cut == 0:
            return push(self.weights[0].mT, self.slopes, self.weights[1:])

        first, last = self.weights[0], self.weights[-1]
        weights = [*self.weights[cut:-1], first @ last, *self.weights[1:cut]]
        slopes = self.slopes[cut - 1 :] + self.slopes[: cut - 1]
        start = torch.einsum("...kh,okh->...ho", slopes[0], blocks(weights[0], slopes[0]))
        return push(start, slopes[1:], weights[1:])

    def rank(self) -> int:
        return self.widths()[self.cut()]

    def cut(self) -> int:
        widths = self.widths()
        return widths.index(min(widths))

    def widths(self) -> list[int]:
        return [self.weights[0].shape[-1], *(s.shape[-1] for s in self.slopes)]


def push(rows: Tensor, slopes: Iterable[Tensor], weights: Iterable[Tensor]) -> Tensor:
    """Each row r to ... W_2 D_2 W_1 D_1 r."""
    for slope, weight in zip(slopes, weights, strict=True):
        features = slope.unsqueeze(-3) * rows.unsqueeze(-2)
        rows = features.flatten(-2) @ weight.mT
    return rows


def blocks(weight: Tensor, slopes: Tensor) -> Tensor:
    """The columns of a weight by the copies that they read: (o, k h) to (o, k, h)."""
    return weight.unflatten(-1, slopes.shape[-2:])


def diagonals(weight: Tensor, slopes: Tensor) -> Tensor:
    """The diagonals of a weight's k square blocks, with shape (k, h)."""
    return blocks(weight, slopes).diagonal(dim1=-3, dim2=-1)
