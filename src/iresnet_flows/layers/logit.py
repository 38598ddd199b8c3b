"""From the unit cube to the whole space."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from iresnet_flows.checks import check_tensor
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import InputOutsideDomain
from iresnet_flows.layers.contract import Layer

__all__ = ["Logit"]


class Logit(Layer):
    r"""The map :math:`y = \operatorname{logit}(\alpha + (1 - 2 \alpha)\, x)` of each entry.

    Holds for x in [0, 1], as pixels are. The log-det is
    :math:`\sum \log \frac{1 - 2 \alpha}{p (1 - p)}` with :math:`p = \alpha + (1 - 2 \alpha) x`.

    Arguments:
        alpha: How far x is drawn from the ends of the interval, in (0, 1/2).

    Shapes:
        x and y ``(B, *event)``, logabsdet (B,) in nats.

    Raises:
        ValueError: alpha or x is out of range.

    References:
        Dinh et al., Density Estimation Using Real NVP, 2017.

    Example:
        >>> import torch
        >>> layer, x = Logit(), torch.rand(5, 3)
        >>> bool(torch.allclose(layer.invert(layer.transform(x)), x, atol=1e-6))
        True
    """

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha must lie in (0, 0.5), got {alpha!r}.")
        self.alpha = alpha

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.transform(x, context)
        return y, self.log_abs_det(y)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.invert(y, context), -self.log_abs_det(y)

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("x", x)
        y = (self.alpha + (1 - 2 * self.alpha) * x).logit()
        if not torch.compiler.is_compiling() and not concrete(y.isfinite()).all():
            least, most = (float(end) for end in concrete(x).aminmax())
            raise InputOutsideDomain(
                f"x must lie in [0, 1], as pixels / 255 do, got {least:g} to {most:g}: scale it."
            )
        return y

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        check_tensor("y", y)
        return (y.sigmoid() - self.alpha) / (1 - 2 * self.alpha)

    def log_abs_det(self, y: Tensor) -> Tensor:
        # 1 / (p (1 - p)), from y and without cancellation.
        terms = (
            F.softplus(y, threshold=40)
            + F.softplus(-y, threshold=40)
            + math.log(1 - 2 * self.alpha)
        )
        return terms.flatten(1).sum(1)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"
