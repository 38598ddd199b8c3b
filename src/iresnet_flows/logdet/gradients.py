"""Log-determinants that were computed elsewhere, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.nodes import node
from iresnet_flows.precision import full_precision

__all__ = ["Weigh", "with_gradient"]

Weigh = Callable[[Jacobian, Tensor, Tensor], Tensor]


class WithGradient(torch.autograd.Function):
    r"""Totals whose gradient is that of :math:`w^\top J v` for constant w and v.

    A first derivative takes the weights w as they are. One that is itself recorded computes them
    anew, from the Jacobian, so that second derivatives exist though no step of the computation
    of w was kept.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        weigh: Weigh,
        rebuild: Callable[..., Jacobian],
        steps: int,
        totals: Tensor,
        v: Tensor,
        w: Tensor,
        coefficients: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        return totals.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.weigh, ctx.rebuild, ctx.steps, _, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        v, w, coefficients, *tensors = ctx.saved_tensors
        count = len(tensors) - ctx.steps
        jacobian, steps = ctx.rebuild(*tensors[:count]), tuple(tensors[count:])
        with full_precision(v):
            if torch.is_grad_enabled():
                w, steps = ctx.weigh(jacobian, v, coefficients), ()
            c = cotangents[0]
            w = w * c.reshape(*c.shape, *[1] * (w.dim() - 2)).to(w.dtype)
            gradients = jacobian.cotangents(w, v, steps)
            return *[None] * 7, *gradients, *[None] * ctx.steps


def with_gradient(
    jacobian: Jacobian,
    weigh: Weigh,
    totals: Tensor,
    v: Tensor,
    w: Tensor,
    coefficients: Tensor,
    steps: tuple[Tensor, ...] = (),
) -> Tensor:
    r"""The totals with the gradient :math:`w^\top \partial J\, v`.

    For :math:`f(J) = \sum_k s_k \operatorname{tr} J^k / k` that is :math:`\operatorname{tr}(f'(J)
    \partial J)` with :math:`f'(J) = \sum_k s_k J^{k-1}`, for whose transpose times v the weights
    stand.

    Arguments:
        jacobian: The Jacobian J.
        weigh: Gives the weights from a Jacobian, the vectors v and the coefficients.
        totals: The values, with shape (p, B).
        v: The vectors, with shape (p, B, *event).
        w: The weights, with the same shape.
        coefficients: What else the weights were made with.
        steps: What the Jacobian was computed by, if v is its basis.
    """
    return node(
        WithGradient,
        weigh,
        jacobian.rebuild,
        len(steps),
        totals,
        v,
        w,
        coefficients,
        *jacobian.tensors,
        *steps,
    )
