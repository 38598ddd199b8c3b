"""The log-determinant as a power series with random probes."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from iresnet_flows.concrete import concrete
from iresnet_flows.errors import SeriesNotConvergedWarning
from iresnet_flows.jacobians import Jacobian
from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.probes import rademacher

__all__ = ["PowerSeries"]


@dataclass(frozen=True)
class PowerSeries:
    r"""The truncated series with Rademacher probes v, the trace exact where it is cheap.

    .. math:: \log\det(I + J) \approx \operatorname{tr} J
              + \sum_{k=2}^{n} \frac{(-1)^{k+1}}{k}\, v^\top J^k v

    Where the branch has no cheap trace the sum starts at k = 1. The value is the series itself,
    in train and eval mode alike, and the gradient is the gradient of that value. With
    :math:`w_k = (J^\top)^k v` and :math:`\|J\| \leq L < 1`, what is left out is certified:

    .. math:: \Big|\sum_{k>n} \frac{(-1)^{k+1}}{k} v^\top w_k\Big|
              \leq \|v\|\,\|w_n\| \frac{L}{(n+1)(1-L)} .

    Without `terms` the sum stops as soon as this bound meets `tolerance` for every sample. It is
    a bound for the probes that were drawn; the noise of the probes is apart, and `standard_error`
    reports it for two probes or more.

    Costs a product with the Jacobian a term; `probes` of them share a batch. The graph keeps every
    product.

    Arguments:
        terms: A fixed number n of terms, or None to stop by the certified bound.
        tolerance: The largest bias in nats, for `terms` None.
        probes: The number of probes that are averaged.
        max_terms: The most terms; where the bound is not met by then, a warning says by how much.
        generator: Draws the probes, else torch's global generator does.

    Raises:
        ValueError: A number is out of range.

    References:
        Behrmann et al., Invertible Residual Networks, 2019 (the series and its probes).

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> g = LipschitzMLP(100, hidden_features=(200, 200))
        >>> block = InvertibleResidualBlock(g, PowerSeries(probes=8))
        >>> estimate = block.log_abs_det(torch.randn(5, 100))
        >>> bool((estimate.bias_bound <= 0.01).all())
        True
    """

    terms: int | None = None
    tolerance: float = 0.01
    probes: int = 1
    max_terms: int = 200
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        for name in ("terms", "probes", "max_terms"):
            value = getattr(self, name)
            if value is not None and not value >= 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}.")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance!r}.")

    def __call__(
        self,
        jacobian: Jacobian,
        x: Tensor,
        lipschitz: Tensor,
        generator: torch.Generator | None = None,
    ) -> LogDet:
        v = rademacher((self.probes, *x.shape), x, generator or self.generator)
        trace = jacobian.trace()
        total = torch.zeros_like(inner(v, v)) if trace is None else trace.expand(self.probes, -1)

        w, k = v, 0
        while True:
            w, k = jacobian.apply_transposed(w), k + 1
            if k > 1 or trace is None:
                total = total + (-1) ** (k + 1) / k * inner(v, w)

            bound = norm(v) * norm(w.detach()) * lipschitz / ((k + 1) * (1 - lipschitz))
            tail = bound.mean(0)
            if self.is_last(k, tail):
                break

        mean, freedom = total.mean(0), self.probes * (self.probes - 1)
        spread = (total - mean).detach().square().sum(0)
        error = (spread / freedom).sqrt() if freedom else torch.full_like(tail, math.nan)
        return LogDet(mean, error, tail)

    def is_last(self, k: int, tail: Tensor) -> bool:
        """Whether the k-th term ends the series, which leaves at most that tail."""
        if self.terms is not None:
            return k == self.terms
        if concrete(tail <= self.tolerance).all():
            return True
        if k < self.max_terms:
            return False
        warnings.warn(
            f"The log-det series was cut after {k} terms with a certified tail of "
            f"{float(concrete(tail).max()):.1e} nats, above the tolerance {self.tolerance:.1e}: "
            "raise max_terms or tolerance, or build the branch with a smaller lipschitz.",
            SeriesNotConvergedWarning,
            stacklevel=5,
        )
        return True


def inner(v: Tensor, w: Tensor) -> Tensor:
    return (v * w).flatten(2).sum(-1, dtype=torch.promote_types(w.dtype, torch.float32))


def norm(v: Tensor) -> Tensor:
    return v.flatten(2).norm(dim=-1)
