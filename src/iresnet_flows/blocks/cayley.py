"""The Cayley block: more change of volume than a residual block, at a solve in each direction."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from iresnet_flows.blocks.branched import BranchedLayer, uncompiled
from iresnet_flows.inverse import Solution
from iresnet_flows.inverse.iteration import norms
from iresnet_flows.logdet import LogDet
from iresnet_flows.logdet.functions import CAYLEY

__all__ = ["CayleyBlock"]

ROOT = math.sqrt(2)


class CayleyBlock(BranchedLayer):
    r"""The Cayley transform of a branch g with :math:`\operatorname{Lip}(g) \leq L < 1`.

    .. math:: y = \sqrt 2\, w - x , \quad w + g(w) = \sqrt 2\, x ; \qquad
              x = \sqrt 2\, w - y , \quad w - g(w) = \sqrt 2\, y

    The map is strongly monotone. Its Lipschitz constant and that of its inverse are at most
    :math:`(1 + L)/(1 - L)`, where those of :math:`x + g(x)` are :math:`1 + L` and
    :math:`1/(1 - L)`: it stretches and shrinks more, and alike. The log-determinant

    .. math:: \log\det\frac{\partial y}{\partial x} = \log\det(I - J) - \log\det(I + J)
              = -2 \sum_{k\ \mathrm{odd}} \frac{\operatorname{tr} J^k}{k} , \quad J = J_g(w),

    lies within :math:`\pm d \log\frac{1 + L}{1 - L}`. Each direction costs one solve, certified
    as the inverse of a residual block is, and so are the gradients, to any order.

    Arguments:
        branch: The branch g, such as `LipschitzMLP`.
        log_det: `Exact`, `PowerSeries` or `RussianRoulette`. None: as for
            `InvertibleResidualBlock`.
        solver: How both equations are solved. None: as for `InvertibleResidualBlock`.
        memory: ``low`` keeps less and evaluates g once more, as for `InvertibleResidualBlock`.

    Shapes:
        x and y ``(B, *event)``, context ``(B, *context_event)``, logabsdet (B,), all of one dtype.
        In half precision a log-det is float32, for its terms cancel.

    Raises:
        InverseNotConverged: A solve missed its tolerance.
        ValueError: A shape does not fit, or the context is missing or not asked for.
        TypeError: The dtype is not the layer's, or a part is not what it should be.

    References:
        Ahn et al., Invertible Monotone Operators for Normalizing Flows, 2022.

    Example:
        >>> import torch
        >>> from iresnet_flows import CayleyBlock, LipschitzMLP
        >>> block = CayleyBlock(LipschitzMLP(2, hidden_features=(16, 16)))
        >>> x = torch.randn(5, 2)
        >>> y, logabsdet = block(x)
        >>> restored, minus_logabsdet = block.inverse(y)
        >>> torch.allclose(restored, x, atol=1e-4)
        True
        >>> torch.allclose(minus_logabsdet, -logabsdet, atol=1e-4)
        True
    """

    function = CAYLEY

    @uncompiled
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y, measure = self.deferred(x, context)
        return y, measure()

    @uncompiled
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        g = self.residual(y, context)
        w = self.equation(g, -1).root(ROOT * y)
        return ROOT * w - y, -self.measure(g, w)[1].value

    @uncompiled
    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return ROOT * self.equation(self.residual(x, context)).root(ROOT * x) - x

    @uncompiled
    def deferred(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        g = self.residual(x, context)
        w = self.equation(g).root(ROOT * x)
        return ROOT * w - x, lambda: self.measure(g, w)[1].value

    @uncompiled
    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return ROOT * self.equation(self.residual(y, context), -1).root(ROOT * y) - y

    @uncompiled
    def solve(self, y: Tensor, context: Tensor | None = None) -> Solution:
        """The inverse with its certified error, converged or not; the value has its gradient."""
        g = self.residual(y, context)
        solution = self.equation(g, -1).solve(ROOT * y)
        w = solution.value
        x = ROOT * w - y
        with torch.no_grad():
            rounding = torch.finfo(x.dtype).eps * (ROOT * norms(w) + norms(y))
        return replace(solution, value=x, error_bound=ROOT * solution.error_bound + rounding)

    @uncompiled
    def log_abs_det(self, x: Tensor, context: Tensor | None = None) -> LogDet:
        """log|det(dy/dx)| at x with its standard error and a bound of its bias."""
        g = self.residual(x, context)
        return self.measure(g, self.equation(g).root(ROOT * x))[1]
