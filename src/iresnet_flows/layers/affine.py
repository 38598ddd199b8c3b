"""An affine map of each entry."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iresnet_flows.checks import check_features, check_input
from iresnet_flows.layers.contract import Layer

__all__ = ["ElementwiseAffine"]


class ElementwiseAffine(Layer):
    r"""The map :math:`y = e^{s} \circ x + t` with learned :math:`s, t`, the identity at first.

    Between residual blocks it carries what a Lipschitz constant below one cannot: scale. Unlike
    an ActNorm it takes nothing from the first batch it sees. Costs O(d).

    Arguments:
        features: The dimension d of x.

    Shapes:
        x and y (B, d), logabsdet (B,) in nats.

    Example:
        >>> import torch
        >>> y, logabsdet = ElementwiseAffine(3)(torch.randn(5, 3))
        >>> logabsdet
        tensor([0., 0., 0., 0., 0.], grad_fn=<ExpandBackward0>)
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        check_features("features", features)
        self.features = features
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, context), self.log_scale.sum().expand(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.invert(y, context), -self.log_scale.sum().expand(len(y))

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        self.check("x", x)
        return x * self.log_scale.exp() + self.shift

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        self.check("y", y)
        return (y - self.shift) * self.log_scale.neg().exp()

    def check(self, name: str, x: Tensor) -> None:
        check_input(name, x, self.features, self.shift.dtype)

    def extra_repr(self) -> str:
        return f"features={self.features}"
