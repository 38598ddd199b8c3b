"""One chain of products with a Jacobian that gives a log-determinant and its gradient."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from iresnet_flows.concrete import concrete
from iresnet_flows.jacobians import Jacobian
from iresnet_flows.logdet.estimates import LogDet, full_precision
from iresnet_flows.logdet.functions import Function
from iresnet_flows.logdet.gradients import with_gradient

__all__ = ["Chain", "Draw", "attach"]

TRACES = 2


class Draw(NamedTuple):
    r"""The sums over one chain :math:`w_k = (J^\top)^k v`, without the m terms of exact traces.

    Arguments:
        function: What is measured, with its factors :math:`s_k`.
        probes: The vectors v, with shape (p, B, *event).
        totals: :math:`\sum_{k > m} q_k \frac{s_k}{k} v^\top w_k`, with shape (p, B).
        weights: :math:`\sum_{k \geq m} q_{k+1} s_{k+1} w_k`, with shape (p, B, *event).
        coefficients: The :math:`q_{k+1} s_{k+1}`, with shape (n, p).
        bias_bound: A certified bound of what the totals leave out, with shape (B,).
    """

    function: Function
    probes: Tensor
    totals: Tensor
    weights: Tensor
    coefficients: Tensor
    bias_bound: Tensor


class Chain:
    """The running sums of a `Draw`, product by product.

    Arguments:
        jacobian: The Jacobian J.
        v: The probes.
        lipschitz: A bound L of the norm of J, below one, a scalar.
        function: What is measured.
    """

    def __init__(
        self, jacobian: Jacobian, v: Tensor, lipschitz: Tensor, function: Function
    ) -> None:
        self.jacobian = jacobian
        self.function = function
        self.lipschitz = lipschitz
        self.known = jacobian.known_traces(TRACES)
        self.k = 0
        self.v = self.w = v
        self.reach = norm(v)
        self.weights = torch.zeros_like(v)
        self.totals = torch.zeros_like(inner(v, v))
        self.coefficients: list[Tensor] = []

    def step(self, share: Tensor | None = None) -> None:
        """Add a term, or that share of it, one for each probe."""
        factor = self.function.factor(self.k + 1) if self.k >= self.known else 0.0
        coefficient = factor * (self.v.new_ones(()) if share is None else share.to(self.v.dtype))
        self.coefficients.append(coefficient.expand(len(self.v)))
        with full_precision(self.v):
            if factor:
                self.weights = self.weights + like(coefficient, self.w) * self.w
            self.k, self.w = self.k + 1, self.jacobian.apply_transposed(self.w)
            if factor:
                term = like(coefficient, self.totals) / self.k * inner(self.v, self.w)
                self.totals = self.totals + term

    def tail(self) -> Tensor:
        r"""A bound of :math:`\sum_{i > k} |s_i v^\top w_i| / i`, averaged over the probes."""
        factor = tail_sum(self.function, self.lipschitz, self.k)
        return (self.reach * norm(self.w)).mean(0) * factor

    def certifies(self, tolerance: float) -> bool:
        """Whether the tail of every sample is known to be small; asked of a GPU now and then."""
        # Each answer makes the host wait for the device.
        stride = 1 if self.v.device.type == "cpu" else 4
        if self.k == 0 or self.k % stride:
            return False
        return bool((concrete(self.tail()) <= tolerance).all())

    def draw(self, bias_bound: Tensor) -> Draw:
        coefficients = torch.stack(self.coefficients)
        return Draw(self.function, self.v, self.totals, self.weights, coefficients, bias_bound)


def tail_sum(function: Function, lipschitz: Tensor, k: int, near: int = 8) -> Tensor:
    r""":math:`\sum_{i \geq 1} |s_{k+i}| L^i / (k + i)`, from above: the far terms as geometric."""
    sizes = [abs(function.factor(k + i)) / (k + i) for i in range(1, near + 3)]
    i = torch.arange(1, near + 1, dtype=lipschitz.dtype, device=lipschitz.device)
    close = (lipschitz.new_tensor(sizes[:near]) * lipschitz**i).sum()
    return close + max(sizes[near:]) * lipschitz ** (near + 1) / (1 - lipschitz)


def neumann(jacobian: Jacobian, v: Tensor, coefficients: Tensor) -> Tensor:
    """The weights of a `Draw` from its coefficients."""
    w, *rest = v, *coefficients
    weights = like(rest[0], v) * v
    for coefficient in rest[1:]:
        w = jacobian.apply_transposed(w)
        weights = weights + like(coefficient, w) * w
    return weights


def attach(draw: Draw, jacobian: Jacobian) -> LogDet:
    """The estimate of a draw, with its gradient; traces that are cheap are exact in both."""
    with full_precision(draw.probes):
        totals = with_gradient(
            jacobian, neumann, draw.totals, draw.probes, draw.weights, draw.coefficients
        )
        for k, trace in enumerate(jacobian.traces(TRACES), start=1):
            totals = totals + draw.function.factor(k) / k * trace

    value, (p, _) = totals.mean(0), totals.shape
    spread = (totals - value).detach().square().sum(0)
    error = (spread / (p * (p - 1))).sqrt() if p > 1 else torch.full_like(spread, math.nan)
    return LogDet(value, error, draw.bias_bound)


def like(scalars: Tensor, vectors: Tensor) -> Tensor:
    """One scalar for each probe, or one for all, to multiply vectors with."""
    return scalars.reshape(*scalars.shape, *[1] * (vectors.dim() - 1))


def inner(v: Tensor, w: Tensor) -> Tensor:
    return (v * w).flatten(2).sum(-1, dtype=torch.promote_types(w.dtype, torch.float32))


def norm(v: Tensor) -> Tensor:
    return v.flatten(2).norm(dim=-1)
