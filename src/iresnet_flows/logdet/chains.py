"""One chain of products with a Jacobian that gives a log-determinant and its gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iresnet_flows.concrete import concrete
from iresnet_flows.jacobians import Jacobian
from iresnet_flows.logdet.estimates import LogDet, full_precision

__all__ = ["Chain", "Draw", "attach"]


class Draw(NamedTuple):
    r"""The sums over one chain :math:`w_k = (J^\top)^k v`, with shares :math:`s_k` of the terms.

    Arguments:
        probes: The vectors v, with shape (p, B, *event).
        totals: :math:`\sum_{k \geq 1} s_k \frac{(-1)^{k+1}}{k} v^\top w_k`, with shape (p, B).
        weights: :math:`\sum_{k \geq 0} s_k (-1)^k w_k`, with shape (p, B, *event).
        bias_bound: A certified bound of what the totals leave out, with shape (B,).
    """

    probes: Tensor
    totals: Tensor
    weights: Tensor
    bias_bound: Tensor


class Chain:
    """The running sums of a `Draw`, product by product.

    Arguments:
        jacobian: The Jacobian J.
        v: The probes.
    """

    def __init__(self, jacobian: Jacobian, v: Tensor) -> None:
        self.jacobian = jacobian
        self.k = 0
        self.v = self.w = self.weights = v
        self.totals = torch.zeros_like(inner(v, v))

    def step(self, share: Tensor | None = None) -> None:
        """Add a term, or that share of it, one for each probe."""
        with full_precision(self.v):
            self.k, self.w = self.k + 1, self.jacobian.apply_transposed(self.w)

        factor: Tensor | float = (-1) ** self.k
        if share is not None:
            factor = factor * share.to(self.v.dtype).reshape(-1, *[1] * (self.v.dim() - 1))
        term = factor * self.w
        self.totals = self.totals - inner(self.v, term.detach()) / self.k
        self.weights = self.weights + term

    def tail(self, lipschitz: Tensor) -> Tensor:
        r"""A bound of :math:`\sum_{i > k} |v^\top w_i| / i`, averaged over the probes."""
        i = torch.arange(1, 65, dtype=lipschitz.dtype, device=lipschitz.device)
        powers = lipschitz**i
        rest = powers[-1] * lipschitz / (1 - lipschitz) / (self.k + 65)
        reach = norm(self.v) * norm(self.w.detach())
        return (reach * ((powers / (self.k + i)).sum() + rest)).mean(0)

    def certifies(self, tolerance: float, lipschitz: Tensor) -> bool:
        """Whether the tail of every sample is known to be small; asked of a GPU now and then."""
        # Each answer makes the host wait for the device.
        stride = 1 if self.v.device.type == "cpu" else 4
        if self.k == 0 or self.k % stride:
            return False
        return bool(concrete(self.tail(lipschitz) <= tolerance).all())

    def draw(self, bias_bound: Tensor) -> Draw:
        return Draw(self.v, self.totals, self.weights, bias_bound)


class WithGradient(torch.autograd.Function):
    r"""Totals that were computed elsewhere, with the gradient :math:`w^\top \partial(J v)`.

    That of :math:`\operatorname{tr} \log(I + J)` is :math:`\operatorname{tr}((I + J)^{-1}
    \partial J)`. The weights w stand for the inverse, times a probe. They get no gradient here,
    but they appear in the one of Jv, and so have their own in a second derivative.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(totals: Tensor, weights: Tensor, product: Tensor) -> Tensor:
        return totals.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[None, None, Tensor]:
        (weights,) = ctx.saved_tensors
        event = weights.dim() - 2
        return None, None, cotangents[0].unflatten(-1, (-1, *[1] * event)) * weights


def attach(draw: Draw, jacobian: Jacobian) -> LogDet:
    """The estimate of a draw, with its gradient: the trace, where it is cheap, is exact."""
    v = draw.probes
    with full_precision(v):
        product = jacobian.apply(v)
        totals = WithGradient.apply(draw.totals, draw.weights, product)
        trace = jacobian.trace()
        if trace is not None:
            totals = totals + trace - inner(v, product)

    value, (p, _) = totals.mean(0), totals.shape
    spread = (totals - value).detach().square().sum(0)
    error = (spread / (p * (p - 1))).sqrt() if p > 1 else torch.full_like(spread, math.nan)
    return LogDet(value, error, draw.bias_bound)


def inner(v: Tensor, w: Tensor) -> Tensor:
    return (v * w).flatten(2).sum(-1, dtype=torch.promote_types(w.dtype, torch.float32))


def norm(v: Tensor) -> Tensor:
    return v.flatten(2).norm(dim=-1)
