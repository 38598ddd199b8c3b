"""The invertible residual block: one branch, one solver, one estimator."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from iresnet_flows.blocks.branched import BranchedLayer, uncompiled
from iresnet_flows.inverse import Solution
from iresnet_flows.logdet import LogDet
from iresnet_flows.logdet.functions import RESIDUAL

__all__ = ["InvertibleResidualBlock"]


class InvertibleResidualBlock(BranchedLayer):
    r"""The map :math:`y = x + g(x)`, invertible since :math:`\operatorname{Lip}(g) < 1`.

    The log-determinant :math:`\log|\det(I + J_g(x))|` is in nats, and its sign is certain: with
    :math:`L = \operatorname{Lip}(g)` it lies between :math:`d \log(1 - L)` and
    :math:`d \log(1 + L)`. The inverse is solved to a certified error, and its gradient is that of
    the exact inverse, by the implicit function theorem. The map is the same in train and eval
    mode, and the log-det is a value with its own gradient in both, sample by sample, to any order.

    Arguments:
        branch: The residual g, such as `LipschitzMLP`.
        log_det: `Exact`, `PowerSeries` or `RussianRoulette`. None: exact where the branch, at its
            narrowest, is at most 64 wide in eval mode and 8 in train mode; elsewhere roulette,
            which has no bias, with one probe in train mode and four in eval mode.
        solver: How the inverse is solved. None: `Anderson` with its defaults.
        memory: ``low`` keeps x and what was drawn for the backward pass, three vectors a sample
            for a series whatever its length, beside the shifts and scales that a context gives
            the hidden layers, and evaluates g once more there. Such a log-det has first
            derivatives only, and says so when asked for more.

    Shapes:
        x and y ``(B, *event)``, context ``(B, *context_event)``, logabsdet (B,), all of one dtype.
        In half precision a log-det is float32, for its terms cancel.

    Raises:
        InverseNotConverged: An inverse missed its tolerance.
        ValueError: A shape does not fit, or the context is missing or not asked for.
        TypeError: The dtype is not the layer's, or a part is not what it should be.

    References:
        Behrmann et al., Invertible Residual Networks, 2019.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2, hidden_features=(16, 16)))
        >>> x = torch.randn(5, 2)
        >>> y, logabsdet = block(x)
        >>> restored, minus_logabsdet = block.inverse(y)
        >>> torch.allclose(restored, x, atol=1e-4)
        True
        >>> torch.allclose(minus_logabsdet, -logabsdet, atol=1e-4)
        True
    """

    function = RESIDUAL

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y = x + g(x) and log|det(I + J_g(x))|."""
        value, log_det = self.measure(self.residual(x, context), x)
        return x + value, log_det.value

    @uncompiled
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The x with x + g(x) = y, and minus log|det(I + J_g(x))|."""
        g = self.residual(y, context)
        x = self.equation(g).root(y)
        return x, -self.measure(g, x)[1].value

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y = x + g(x) alone."""
        return x + self.residual(x, context)(x)

    def deferred(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        if self.memory == "low":
            return super().deferred(x, context)
        g = self.residual(x, context)
        value, jacobian = g.linearize(x)
        return x + value, lambda: self.estimate(g, jacobian, x).value

    @uncompiled
    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """The x with x + g(x) = y alone."""
        return self.equation(self.residual(y, context)).root(y)

    @uncompiled
    def solve(self, y: Tensor, context: Tensor | None = None) -> Solution:
        """The inverse with its certified error, converged or not; the value has its gradient."""
        return self.equation(self.residual(y, context)).solve(y)

    def log_abs_det(self, x: Tensor, context: Tensor | None = None) -> LogDet:
        """log|det(I + J_g(x))| with its standard error and a bound of its bias."""
        return self.measure(self.residual(x, context), x)[1]
