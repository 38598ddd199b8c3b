"""Traces of chains of matrices and slopes that cost no more than a product."""

from __future__ import annotations

from torch import Tensor

__all__ = ["cheap_traces", "one_layer_traces", "two_layer_trace"]


def cheap_traces(hidden_layers: int) -> int:
    """How many of tr J, tr J^2 are cheap for a chain with so many hidden layers."""
    return {1: 2, 2: 1}.get(hidden_layers, 0)


def one_layer_traces(closing: Tensor, slopes: Tensor, count: int) -> tuple[Tensor, ...]:
    r"""tr J and tr J^2 of :math:`J = W_2 D W_1`, from :math:`M = W_1 W_2` and the slopes.

    With one copy they are :math:`\sum_i D_i M_{ii}` and :math:`D^\top (M \circ M^\top) D`.

    Arguments:
        closing: The product M, with shape (h, k h).
        slopes: The derivatives, with shape (B, k h).
        count: How many are asked for.
    """
    h, features = closing.shape
    trace = slopes @ closing.unflatten(-1, (-1, h)).diagonal(dim1=0, dim2=2).flatten()
    if count == 1:
        return (trace,)
    # Entry i of copy k meets entry j of copy l as M[i, (l, j)] M[j, (k, i)].
    square = closing.tile(features // h, 1)
    kernel = square * square.mT
    return trace, ((slopes @ kernel) * slopes).sum(-1)


def two_layer_trace(closing: Tensor, middle: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
    r"""tr J of :math:`J = W_3 D_2 W_2 D_1 W_1`, from :math:`M = W_1 W_3`, W_2 and the slopes.

    With one copy it is :math:`D_2^\top (W_2 \circ M^\top) D_1`.

    Arguments:
        closing: The product M, with shape (h_1, k_2 h_2).
        middle: The matrix W_2, with shape (h_2, k_1 h_1).
        inner: The derivatives in D_1, with shape (B, k_1 h_1).
        outer: The derivatives in D_2, with shape (B, k_2 h_2).
    """
    return ((inner @ pair_copies(closing, middle).mT) * outer).sum(-1)


def pair_copies(closing: Tensor, middle: Tensor) -> Tensor:
    r""":math:`W_2 \circ M^\top` for each pair of copies, with shape (k_2 h_2, k_1 h_1)."""
    (h_1, outer), (h_2, inner) = closing.shape, middle.shape
    return middle.tile(outer // h_2, 1) * closing.mT.tile(1, inner // h_1)
