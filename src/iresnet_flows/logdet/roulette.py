"""The log-determinant as a power series of random length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from iresnet_flows.checks import check_count, check_generator, check_number
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import InfiniteVariance
from iresnet_flows.logdet.chains import Chain, Draw, attach
from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.logdet.functions import RESIDUAL, Function
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.probes import rademacher

__all__ = ["RussianRoulette"]

RARE = 0.01  # the chance of a tail that goes on as slowly as the bound allows


@dataclass(frozen=True)
class RussianRoulette:
    r"""The whole series without bias: after n terms, a random number N of further ones.

    .. math:: \log\det(I + J) \approx \sum_{k=1}^{n+N} s_k \frac{(-1)^{k+1}}{k}\, v^\top J^k v
              + (\operatorname{tr} J - v^\top J v) , \quad
              s_k = \frac{1}{P(N \geq k - n)} ,

    with :math:`s_k = 1` for :math:`k \leq n`. The gradient is made as by `PowerSeries`, with the
    same shares, and is unbiased too.

    It costs least where the chances fall as fast as the terms do. How fast these fall is seen,
    from the last two of the n vectors :math:`w_k = (J^\top)^k v`; but only :math:`P(N \geq j) >
    L^{2j}`, in the end, makes a finite variance certain. So both are heeded, with
    :math:`\rho = \min(\|w_n\| / \|w_{n-1}\|, L)`, norms over the batch:

    .. math:: P(N \geq j) = 0.99\, \rho^{j-1} + 0.01\, L^{j-1} .

    The probes decide on :math:`\rho`, and N is drawn after them, so that there is no bias in it.
    Costs n products, the gradient of one, and :math:`0.99 / (1 - \rho) + 0.01 / (1 - L)` more on
    average. N is drawn for each probe from the generator that draws the probes, and is shared by
    the batch.

    Arguments:
        terms: The number n of terms that are always taken. The gradient's noise falls with the
            first few, down to that of the probes.
        continuation: The probability r that the tail goes on, term by term, in place of these
            chances: :math:`P(N \geq j) = r^{j-1}`.
        heavy_tail: What to do where r does not certify a finite variance: ``refuse`` or
            ``allow``, to compare with others.
        probes: The number of probes that are averaged.
        generator: Draws the probes and N, else torch's global generator does.

    Raises:
        InfiniteVariance: The continuation is at most L squared.
        ValueError: A number is out of range.

    References:
        Chen et al., Residual Flows for Invertible Generative Modeling, 2019. Their setting is
        ``RussianRoulette(terms=2, continuation=0.5, heavy_tail="allow")``.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP, RussianRoulette
        >>> g = LipschitzMLP(100, hidden_features=(200, 200))
        >>> block = InvertibleResidualBlock(g, RussianRoulette(probes=8))
        >>> estimate = block.log_abs_det(torch.randn(5, 100))
        >>> float(estimate.bias_bound.max())
        0.0
    """

    terms: int = 4
    continuation: float | None = None
    heavy_tail: Literal["refuse", "allow"] = "refuse"
    probes: int = 1
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        for name in ("terms", "probes"):
            check_count(name, getattr(self, name))
        check_generator(self.generator)
        if self.continuation is not None:
            check_number("continuation", self.continuation)
            if not 0 < self.continuation < 1:
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
        v = rademacher((self.probes, *x.shape), jacobian.tensors[0], generator)
        chain = Chain(jacobian, v, lipschitz, function)
        for _ in range(self.terms):
            chain.step()

        tail = self.tail(chain)
        length = tail.draw(generator)
        longest = concrete(length).nan_to_num(1.0).max()  # where a step is NaN, so is the value
        for j in range(1, int(longest) + 1):
            chain.step(torch.where(length >= j, 1 / tail.chance(j), 0))
        return chain.draw(torch.zeros_like(chain.reach[0]))

    def attach(self, draw: Draw, jacobian: Jacobian) -> LogDet:
        return attach(draw, jacobian)

    def tail(self, chain: Chain) -> Tail:
        """The distribution of N for each probe."""
        slow = chain.lipschitz.double()
        if self.continuation is None:
            return Tail(torch.minimum(chain.ratio().double(), slow), slow, RARE)

        bound = float(concrete(slow).max())
        if self.continuation <= bound**2 and self.heavy_tail == "refuse":
            raise InfiniteVariance(
                f"a tail that goes on with probability {self.continuation:.3g} has a finite "
                f"variance only for Lipschitz constants below {self.continuation**0.5:.3g}, and "
                f"the branch is bounded by {bound:.3g}: take a continuation above "
                f"{bound**2:.3g} or None, or say heavy_tail='allow'."
            )
        return Tail(slow.new_full((self.probes,), self.continuation), slow, 0.0)


@dataclass(frozen=True)
class Tail:
    r"""The distribution :math:`P(N \geq j) = (1 - \epsilon)\, a^{j-1} + \epsilon\, b^{j-1}`.

    Arguments:
        fast: The ratio a, for each probe.
        slow: The ratio b, a scalar.
        rare: The chance :math:`\epsilon` of the latter.
    """

    fast: Tensor
    slow: Tensor
    rare: float

    def chance(self, j: int) -> Tensor:
        """P(N >= j)."""
        return (1 - self.rare) * self.fast ** (j - 1) + self.rare * self.slow ** (j - 1)

    def draw(self, generator: torch.Generator | None) -> Tensor:
        """N for each probe."""
        which, u = torch.rand(
            2, len(self.fast), generator=generator, device=self.fast.device, dtype=torch.float64
        )
        ratio = torch.where(which < self.rare, self.slow, self.fast)
        return ((-u).log1p() / ratio.log()).floor() + 1
