"""The log-determinant as a power series of random length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from iresnet_flows.checks import check_count, check_tolerance
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import InfiniteVariance
from iresnet_flows.logdet.chains import Chain, Draw, attach
from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.logdet.functions import RESIDUAL, Function
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.probes import rademacher

__all__ = ["RussianRoulette"]


@dataclass(frozen=True)
class RussianRoulette:
    r"""The whole series without bias: after n terms, a random number N of further ones.

    .. math:: \log\det(I + J) \approx \sum_{k=1}^{n+N} s_k \frac{(-1)^{k+1}}{k}\, v^\top J^k v
              + (\operatorname{tr} J - v^\top J v) , \quad
              s_k = \frac{1}{P(N \geq k - n)} , \quad P(N \geq j) = q\, r^{j-1}

    with :math:`s_k = 1` for :math:`k \leq n`. The gradient is made as by `PowerSeries`, with the
    same shares, and is unbiased too. With probability 1 - q nothing is added to the n terms.

    The k-th term is of the size :math:`L^k`, so that its share makes a finite variance certain
    only for :math:`r > L^2`. The default r = L is about the best, for the terms then weigh like
    their chances; a smaller r than allowed is refused.

    Costs n products, the gradient of one, and q / (1 - r) more on average. N is drawn for
    each probe from the generator that draws the probes, and is shared by the batch.

    Arguments:
        terms: The number n of terms that are always taken, or None to take as many as certify
            `tolerance`.
        tolerance: The certified size, in nats, of what is left to the random tail, for `terms`
            None.
        max_terms: The most terms that are always taken for it.
        start: The probability q that there is a random tail.
        continuation: The probability r that it goes on, term by term. None: the certified L.
        heavy_tail: What to do where r does not certify a finite variance: ``refuse`` or
            ``allow``, to compare with others.
        probes: The number of probes that are averaged.
        generator: Draws the probes and N, else torch's global generator does.

    Raises:
        InfiniteVariance: The continuation is at most L squared.
        ValueError: A number is out of range.

    References:
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019. Their setting is
        ``RussianRoulette(terms=2, start=1.0, continuation=0.5, heavy_tail="allow")``.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP, RussianRoulette
        >>> g = LipschitzMLP(100, hidden_features=(200, 200))
        >>> block = InvertibleResidualBlock(g, RussianRoulette(probes=8))
        >>> estimate = block.log_abs_det(torch.randn(5, 100))
        >>> float(estimate.bias_bound.max())
        0.0
    """

    terms: int | None = None
    tolerance: float = 2.0
    max_terms: int = 50
    start: float = 0.05
    continuation: float | None = None
    heavy_tail: Literal["refuse", "allow"] = "refuse"
    probes: int = 1
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        for name in ("terms", "max_terms", "probes"):
            check_count(name, getattr(self, name))
        check_tolerance(self.tolerance)
        if not 0 < self.start <= 1:
            raise ValueError(f"start must lie in (0, 1], got {self.start!r}.")
        if self.continuation is not None and not 0 < self.continuation < 1:
            raise ValueError(f"continuation must lie in (0, 1), got {self.continuation!r}.")
        if self.heavy_tail not in ("refuse", "allow"):
            raise ValueError(f"heavy_tail must be 'refuse' or 'allow', got {self.heavy_tail!r}.")

    def draw(
        self,
        jacobian: Jacobian,
        x: Tensor,
        lipschitz: Tensor,
        generator: torch.Generator | None = None,
        function: Function = RESIDUAL,
    ) -> Draw:
        generator = generator or self.generator
        ratio = self.ratio(lipschitz)
        v = rademacher((self.probes, *x.shape), x, generator)
        chain = Chain(jacobian, v, lipschitz, function)
        while not self.is_long_enough(chain):
            chain.step()

        # P(N >= j) = q r^(j - 1), inverted.
        u = torch.rand(len(v), generator=generator, device=x.device, dtype=torch.float64)
        length = torch.where(u < self.start, (u / self.start).log() / ratio.log() + 1, 0).floor()
        for j in range(1, int(concrete(length).max()) + 1):
            chain.step(torch.where(length >= j, ratio ** (1 - j) / self.start, 0))
        return chain.draw(torch.zeros_like(chain.reach[0]))

    def attach(self, draw: Draw, jacobian: Jacobian) -> LogDet:
        return attach(draw, jacobian)

    def is_long_enough(self, chain: Chain) -> bool:
        """Whether what is left may be left to chance."""
        if self.terms is not None:
            return chain.k == self.terms
        return chain.k == self.max_terms or chain.certifies(self.tolerance)

    def ratio(self, lipschitz: Tensor) -> Tensor:
        """The chance r that the tail goes on, where that gives a finite variance."""
        if self.continuation is None:
            return lipschitz
        bound = float(concrete(lipschitz))
        if self.continuation <= bound**2 and self.heavy_tail == "refuse":
            raise InfiniteVariance(
                f"a tail that goes on with probability {self.continuation:.3g} has a finite "
                f"variance only for Lipschitz constants below {self.continuation**0.5:.3g}, and "
                f"the branch is bounded by {bound:.3g}: take a continuation above "
                f"{bound**2:.3g} or None, or say heavy_tail='allow'."
            )
        return torch.full_like(lipschitz, self.continuation)
