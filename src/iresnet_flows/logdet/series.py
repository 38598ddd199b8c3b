"""The log-determinant as a power series with random probes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from iresnet_flows.checks import check_count, check_generator, check_number
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import SeriesNotConvergedWarning
from iresnet_flows.logdet.chains import Chain, Draw, attach
from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.logdet.functions import RESIDUAL, Function
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.probes import rademacher

__all__ = ["PowerSeries"]


@dataclass(frozen=True)
class PowerSeries:
    r"""The truncated series with Rademacher probes v, the trace exact where it is cheap.

    .. math:: \log\det(I + J) \approx \sum_{k=1}^{n} \frac{(-1)^{k+1}}{k}\, v^\top J^k v
              + (\operatorname{tr} J - v^\top J v)

    where the last term, a control variate, is left out if the branch has no cheap trace. One
    chain :math:`w_k = (J^\top)^k v` gives the value and, with that of one product, the gradient

    .. math:: \partial \log\det(I + J) \approx
              \Big(\sum_{k=0}^{n-1} (-1)^k w_k\Big)^\top \partial(J v)
              + \partial (\operatorname{tr} J - v^\top J v) ,

    the Neumann series of :math:`v^\top (I + J)^{-1} \partial J\, v`. Both are unbiased for the
    truncated sums, sample by sample, in train and eval mode alike, and so is the second
    derivative; for the probes of one draw, the gradient is not that of the value.

    With :math:`\|J\| \leq L < 1`, what the value leaves out is certified:

    .. math:: \Big|\sum_{k>n} \frac{(-1)^{k+1}}{k} v^\top w_k\Big|
              \leq \|v\|\,\|w_n\| \sum_{i \geq 1} \frac{L^i}{n + i} .

    Without `terms` the sum stops as soon as this bound meets `tolerance` for every sample. It is
    a bound for the probes that were drawn; the noise of the probes is apart, and `standard_error`
    reports it for two probes or more.

    Costs n products with the Jacobian and the gradient of one; `probes` of them share a batch.

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
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019 (the gradient).

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
        if self.terms is not None:
            check_count("terms", self.terms)
        for name in ("probes", "max_terms"):
            check_count(name, getattr(self, name))
        check_generator(self.generator)
        check_number("tolerance", self.tolerance)
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance!r}.")

    def draw(
        self,
        jacobian: Jacobian,
        x: Tensor,
        lipschitz: Tensor,
        generator: torch.Generator | None = None,
        function: Function = RESIDUAL,
    ) -> Draw:
        v = rademacher((self.probes, *x.shape), jacobian.tensors[0], generator or self.generator)
        chain = Chain(jacobian, v, lipschitz, function)
        while not self.ends(chain):
            chain.step()
        return chain.draw(chain.tail())

    def attach(self, draw: Draw, jacobian: Jacobian) -> LogDet:
        return attach(draw, jacobian)

    def ends(self, chain: Chain) -> bool:
        """Whether no further term is needed."""
        if self.terms is not None:
            return chain.k == self.terms
        if chain.certifies(self.tolerance):
            return True
        if chain.k < self.max_terms:
            return False
        tail = concrete(chain.tail())
        if not len(tail) or tail.max() <= self.tolerance:
            return True
        warnings.warn(
            f"The log-det series was cut after {chain.k} terms with a certified tail of "
            f"{float(tail.max()):.1e} nats, above the tolerance {self.tolerance:.1e}: "
            "raise max_terms or tolerance, or build the branch with a smaller lipschitz.",
            SeriesNotConvergedWarning,
            stacklevel=5,
        )
        return True
