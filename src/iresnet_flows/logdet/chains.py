"""One chain of products with a Jacobian that gives a log-determinant and its gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from iresnet_flows.concrete import concrete
from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.logdet.functions import Function
from iresnet_flows.logdet.gradients import with_gradient
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.precision import full_precision
from iresnet_flows.ranks import sum_over_batch

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
    """The vectors of a `Draw`, product by product.

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
        self.vectors = [v]
        self.shares: list[Tensor] = []
        self.reach = norm(v)
        self.whole = torch.ones(len(v), dtype=v.dtype, device=v.device)

    @property
    def k(self) -> int:
        """The number of products so far."""
        return len(self.shares)

    def step(self, share: Tensor | None = None) -> None:
        """Add a term; a share multiplies it, with one factor for each probe, shape (p,)."""
        self.shares.append(self.whole if share is None else share.to(self.whole.dtype))
        with full_precision(self.reach):
            self.vectors.append(self.jacobian.apply_transposed(self.vectors[-1]))

    def ratio(self) -> Tensor:
        """How much shorter the last step has made the vectors of the batch, for each probe."""
        before, after = (sum_over_batch(norm(w).square(), 1) for w in self.vectors[-2:])
        return (after / before).sqrt().nan_to_num(0.0)

    def spread(self) -> Tensor:
        r""":math:`\|v\| \|w_k\|`, averaged over the probes."""
        return (self.reach * norm(self.vectors[-1])).mean(0)

    def tail(self) -> Tensor:
        r"""A bound of :math:`\sum_{i > k} |s_i v^\top w_i| / i`, averaged over the probes."""
        return self.spread() * tail_sum(self.function, self.lipschitz, self.k)

    def certifies(self, tolerance: float) -> bool:
        """Whether the tail of every sample is known to be small; asked of a GPU now and then."""
        # Each answer makes the host wait for the device.
        stride = 1 if self.reach.device.type == "cpu" else 4
        if self.k == 0 or self.k % stride:
            return False
        spread = concrete(self.spread())
        factor = tail_sum(self.function, float(concrete(self.lipschitz).max()), self.k)
        return not len(spread) or bool(spread.max() * factor <= tolerance)

    def draw(self, bias_bound: Tensor) -> Draw:
        v, counts = self.vectors[0], range(1, self.k + 1)
        factors = [self.function.factor(k) if k > self.known else 0.0 for k in counts]
        coefficients = torch.stack(self.shares) * v.new_tensor(factors).unsqueeze(-1)
        w = torch.stack(self.vectors)
        terms = coefficients / v.new_tensor(counts).unsqueeze(-1)
        totals = (terms.unsqueeze(-1) * inner(v, w[1:])).sum(0)
        weights = (widened(coefficients, v.dim() - 1) * w[:-1]).sum(0)
        return Draw(self.function, v, totals, weights, coefficients, bias_bound)


def tail_sum(function: Function, lipschitz: Any, k: int, near: int = 8) -> Any:
    r""":math:`\sum_{i \geq 1} |s_{k+i}| L^i / (k + i)`, from above: the far terms as geometric."""
    sizes = [abs(function.factor(k + i)) / (k + i) for i in range(1, near + 3)]
    total = max(sizes[near:]) / (1 - lipschitz)
    for size in reversed(sizes[:near]):
        total = size + lipschitz * total
    return lipschitz * total


def neumann(jacobian: Jacobian, v: Tensor, coefficients: Tensor) -> Tensor:
    """The weights of a `Draw` from its coefficients."""
    w, shares = v, widened(coefficients, v.dim() - 1)
    weights = shares[0] * v
    for share in shares[1:]:
        w = jacobian.apply_transposed(w)
        weights = weights + share * w
    return weights


def attach(draw: Draw, jacobian: Jacobian) -> LogDet:
    """The estimate of a draw, with its gradient; traces that are cheap are exact in both."""
    with full_precision(draw.probes):
        totals = with_gradient(
            jacobian, neumann, draw.totals, draw.probes, draw.weights, draw.coefficients
        )
        for k, trace in enumerate(jacobian.traces(TRACES), start=1):
            totals = totals + draw.function.factor(k) / k * trace

    return LogDet(totals.mean(0), standard_error(totals.detach()), draw.bias_bound)


def standard_error(totals: Tensor) -> Tensor:
    """That of the mean over the probes; NaN for one."""
    p = len(totals)
    if p == 1:
        return torch.full_like(totals[0], math.nan)
    return ((totals - totals.mean(0)).square().sum(0) / (p * (p - 1))).sqrt()


def widened(scalars: Tensor, dims: int) -> Tensor:
    return scalars.reshape(*scalars.shape, *[1] * dims)


def inner(v: Tensor, w: Tensor) -> Tensor:
    products = (v * w).flatten(2 - v.dim())
    return products.sum(-1, dtype=torch.promote_types(w.dtype, torch.float32))


def norm(v: Tensor) -> Tensor:
    return v.flatten(2).norm(dim=-1)
