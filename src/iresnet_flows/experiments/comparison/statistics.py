r"""Which difference between two contenders is more than chance.

Two contenders are compared row by row, for what makes a row hard for everyone cancels. With
:math:`D_{sr}` the difference of their -log p with seed s at test row r, the mean difference has

.. math:: \mathrm{SE}^2 = \frac{\mathrm{Var}_s(\bar D_{s \cdot})}{S}
    + \frac{\mathrm{Var}_r(\bar D_{\cdot r})}{R} ,

the first part for what another seed would do (absent with one seed) and the second for what other
test rows would. The -log p of a single contender has an error of the same form. Its degrees of
freedom are Satterthwaite's (1946), and the p values of a family of comparisons are adjusted by
Holm's method (1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from iresnet_flows.experiments.data.tables import Array

__all__ = ["FEW", "Difference", "difference", "holm", "uncertainty"]

FEW = 3
"""With fewer seeds a standard error says little of what another seed would do."""


@dataclass(frozen=True)
class Difference:
    """How far one contender's mean -log p is above another's, in nats.

    Arguments:
        mean: The mean difference.
        standard_error: Its standard error.
        freedom: Its degrees of freedom.
        seeds: The number of seeds that both have.
    """

    mean: float
    standard_error: float
    freedom: float
    seeds: int

    @property
    def sigmas(self) -> float:
        """The difference in standard errors."""
        if self.standard_error > 0:
            return self.mean / self.standard_error
        return math.copysign(math.inf, self.mean) if self.mean else 0.0

    @property
    def p(self) -> float:
        """Two-sided, of no difference."""
        return float(2 * t.sf(abs(self.sigmas), self.freedom))


def difference(these: Sequence[Array], those: Sequence[Array]) -> Difference:
    """The difference between the rows of two contenders, seed by seed.

    Arguments:
        these: For each seed the -log p of the test rows, (R,).
        those: Those of the other contender, with the same seeds in the same order.

    >>> import numpy as np
    >>> d = difference([np.array([2.0, 3.0, 4.0])], [np.array([1.0, 1.5, 3.5])])
    >>> round(d.mean, 3), round(d.standard_error, 3), d.freedom
    (1.0, 0.289, 2.0)
    """
    gaps = np.stack([a - b for a, b in zip(these, those, strict=True)])
    return Difference(float(gaps.mean()), *uncertainty(gaps), len(gaps))


def uncertainty(values: Array) -> tuple[float, float]:
    """The standard error of the mean of values (S, R), and its degrees of freedom."""
    seeds, rows = values.shape
    parts = [(float(values.mean(0).var(ddof=1)) / rows, rows - 1)] if rows > 1 else []
    if seeds > 1:
        parts.append((float(values.mean(1).var(ddof=1)) / seeds, seeds - 1))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    return math.sqrt(variance), variance**2 / spread if spread > 0 else math.inf


def holm(p: Sequence[float]) -> list[float]:
    """The p values of a family, adjusted so that one false finding in it stays unlikely.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted, largest = [1.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return adjusted
