r"""What estimators of a log-determinant leave out, and how they scatter.

Everything is for one residual block at B points, with its Jacobians J written out as (B, d, d).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from iresnet_flows.lipschitz.branches import Residual
from iresnet_flows.logdet import PowerSeries, RussianRoulette

__all__ = [
    "ROUNDING",
    "Draws",
    "Estimator",
    "Row",
    "Tail",
    "certified_tail",
    "deviations",
    "distances",
    "gaussian_roulette",
    "gaussian_series",
    "left_out",
    "loss_bound",
    "ours",
    "partial_sums",
    "pooled",
]

Estimator = PowerSeries | RussianRoulette
Row = tuple[float, float, float, float]
"""The mean number of terms, the bias, its standard error and the standard deviation."""

REST = 400  # terms after which nothing is left of a series that is used here
FULL = 1e-13
GOING_ON = 0.5
ROUNDING = 1e-12


def partial_sums(jacobians: Tensor, terms: int) -> Tensor:
    r"""The matrices :math:`\sum_{k \leq n} \frac{(-1)^{k+1}}{k} J^k`, (terms, B, d, d)."""
    power, total, sums = jacobians, torch.zeros_like(jacobians), []
    for k in range(1, terms + 1):
        total = total - (-1) ** k / k * power
        sums.append(total)
        power = power @ jacobians
    return torch.stack(sums)


def left_out(jacobians: Tensor, terms: int) -> Tensor:
    r"""The bias of the series that is cut after n = 1, ..., `terms` terms, (terms, B).

    .. math:: - \sum_{k > n} \frac{(-1)^{k+1}}{k} \operatorname{tr} J^k ,

    summed from its far end, so that no digits are lost to the terms before.
    """
    power, traces = jacobians, []
    for k in range(1, terms + REST + 1):
        traces.append((-1) ** k / k * power.diagonal(dim1=1, dim2=2).sum(1))
        power = power @ jacobians
    return torch.stack(traces).flip(0).cumsum(0).flip(0)[1 : terms + 1]


def loss_bound(features: int, lipschitz: float, terms: int) -> Tensor:
    r"""Theorem 3's bound of that bias, for n = 1, ..., `terms`, (terms,) float64.

    .. math:: -d \Big(\ln(1 - L) + \sum_{k=1}^n \frac{L^k}{k}\Big)
              = d \sum_{k > n} \frac{L^k}{k} ,

    of which the second form loses no digits; its far end is bounded by a geometric series.

    References:
        Behrmann et al., Invertible Residual Networks, 2019 (Theorem 3).

    Example:
        >>> float(loss_bound(1, 0.5, 2)[1]), -(math.log(0.5) + 0.5 + 0.5**2 / 2)
        (0.0681471805599..., 0.0681471805599...)
    """
    k = torch.arange(1, terms + REST + 1, dtype=torch.float64)
    parts = lipschitz**k / k
    parts[-1] /= 1 - lipschitz
    return features * parts.flip(0).cumsum(0).flip(0)[1 : terms + 1]


def deviations(matrices: Tensor, gaussian: bool) -> Tensor:
    r"""The standard deviation of :math:`v^\top A v` for matrices A, (\*, d, d).

    .. math:: \sqrt{2 \sum_{ij} S_{ij}^2} , \quad S = (A + A^\top) / 2 ,

    with Gaussian v; for Rademacher v the diagonal is left out of the sum.
    """
    squares = ((matrices + matrices.mT) / 2).square()
    total = squares.sum((-2, -1))
    if not gaussian:
        total = total - squares.diagonal(dim1=-2, dim2=-1).sum(-1)
    return (2 * total.clamp_min(0)).sqrt()


@dataclass(frozen=True, eq=False)
class Draws:
    """Estimates, each from one probe.

    Arguments:
        values: With shape (R, B).
        terms: The number of products that each took, on average.
    """

    values: Tensor
    terms: float

    def bias(self, truth: Tensor) -> tuple[float, float]:
        """The mean error over draws and points, and its standard error over the draws."""
        errors = (self.values - truth).mean(1)
        return float(errors.mean()), float(errors.std() / math.sqrt(len(errors)))

    def variance(self) -> float:
        """Over the draws, the mean of the points."""
        return float(self.values.var(0).mean())


def pooled(draws: Sequence[Draws], truths: Sequence[Tensor]) -> Row:
    """The row of the means over several blocks."""
    biases = [each.bias(truth) for each, truth in zip(draws, truths, strict=True)]
    return (
        mean(each.terms for each in draws),
        mean(bias for bias, _ in biases),
        math.sqrt(mean(error**2 for _, error in biases) / len(biases)),
        math.sqrt(mean(each.variance() for each in draws)),
    )


def distances(rows: Sequence[Row], truth: Sequence[float]) -> list[float]:
    """How far drawn biases are from the exact ones, in standard errors, where there is noise."""
    return [
        (bias - exact) / error
        for (_, bias, error, _), exact in zip(rows, truth, strict=True)
        if error > ROUNDING
    ]


def gaussian_series(
    jacobians: Tensor, terms: int, count: int, generator: torch.Generator
) -> list[Draws]:
    """The paper's estimator with 1, ..., `terms` terms, of the same Gaussian probes."""
    total, found = 0.0, []
    for k, product in enumerate(products(jacobians, terms, count, generator), start=1):
        total = total - (-1) ** k / k * product
        found.append(Draws(torch.as_tensor(total), k))
    return found


def gaussian_roulette(
    jacobians: Tensor, terms: int, count: int, generator: torch.Generator
) -> Draws:
    r"""The estimator of Residual Flows: after n terms, N more of them for each Gaussian probe.

    Those are divided by :math:`P(N \geq j) = 2^{1-j}`.

    References:
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019.
    """
    u = torch.rand(count, 1, generator=generator, dtype=torch.float64)
    length = ((-u).log1p() / math.log(GOING_ON)).floor() + 1
    total = torch.zeros(count, len(jacobians), dtype=jacobians.dtype)
    most = terms + int(length.max())
    for k, product in enumerate(products(jacobians, most, count, generator), start=1):
        share = 1.0 if k <= terms else (length >= k - terms) / GOING_ON ** (k - terms - 1)
        total = total - (-1) ** k / k * share * product
    return Draws(total, terms + float(length.mean()))


def products(
    jacobians: Tensor, terms: int, count: int, generator: torch.Generator
) -> list[Tensor]:
    r"""The :math:`v^\top J^k v` for k = 1, ..., `terms`, each (count, B)."""
    shape = (count, *jacobians.shape[:2])
    v = torch.randn(shape, generator=generator, dtype=jacobians.dtype)
    w, found = v, []
    for _ in range(terms):
        w = torch.einsum("rbi,bij->rbj", w, jacobians)
        found.append((w * v).sum(-1))
    return found


def ours(estimator: Estimator, g: Residual, x: Tensor, repeats: int) -> Draws:
    """An estimator of this package, its probes taken one by one."""
    jacobian = g.linearize(x)[1]
    values, terms = [], []
    for _ in range(repeats):
        draw = estimator.draw(jacobian, x, g.lipschitz)
        exact = estimator.attach(draw, jacobian).value - draw.totals.mean(0)
        values.append(draw.totals + exact)
        terms.append((draw.coefficients != 0).double().sum(0).mean() + jacobian.known_traces(2))
    return Draws(torch.cat(values), float(torch.stack(terms).mean()))


@dataclass(frozen=True)
class Tail:
    """What a series that stops by its certified bound has left out, for the same probes.

    Arguments:
        tolerance: What was asked for.
        terms: The number of terms that it took.
        bias: The mean over the points of what is left out, by size.
        stated: The mean of the stated bounds.
        tightest: The largest ratio of what is left out to its bound.
    """

    tolerance: float
    terms: float
    bias: float
    stated: float
    tightest: float


def certified_tail(g: Residual, x: Tensor, tolerance: float, probes: int, seed: int) -> Tail:
    """The series with that tolerance beside the one of the same probes that goes on to its end."""
    jacobian = g.linearize(x)[1]
    found = []
    for asked in (tolerance, FULL):
        generator = torch.Generator().manual_seed(seed)
        series = PowerSeries(tolerance=asked, probes=probes, max_terms=REST, generator=generator)
        draw = series.draw(jacobian, x, g.lipschitz)
        found.append((len(draw.coefficients), series.attach(draw, jacobian)))
    (terms, short), (_, full) = found
    error = (short.value - full.value).abs()
    return Tail(
        tolerance,
        terms,
        float(error.mean()),
        float(short.bias_bound.mean()),
        float((error / short.bias_bound).max()),
    )
