"""The log-determinant itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from iresnet_flows.jacobians import Jacobian
from iresnet_flows.logdet.estimates import LogDet, full_precision

__all__ = ["Exact", "logdet_plus_identity"]


@dataclass(frozen=True)
class Exact:
    r"""The exact log-determinant, at the narrowest cut of the branch.

    For a chain of products, Sylvester's identity :math:`\det(I + AB) = \det(I + BA)` moves the
    cut to the narrowest layer, of width r. Costs the r columns of a product of the weights and
    :math:`O(r^3)` for each sample; closed forms for r = 1 and 2. Draws no random numbers, and both
    errors are zero.

    Holds for every branch with Lipschitz constant below one, where the determinant is positive.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(100, hidden_features=(8, 8)), Exact())
        >>> y, logabsdet = block(torch.randn(5, 100))
        >>> logabsdet.shape
        torch.Size([5])
    """

    def draw(
        self,
        jacobian: Jacobian,
        x: Tensor,
        lipschitz: Tensor,
        generator: torch.Generator | None = None,
    ) -> None:
        """Nothing."""

    def attach(self, draw: None, jacobian: Jacobian) -> LogDet:
        core = jacobian.core()
        with full_precision(core):
            value = logdet_plus_identity(core)
        zero = torch.zeros_like(value)
        return LogDet(value, zero, zero)


def logdet_plus_identity(m: Tensor) -> Tensor:
    """log|det(I + M)| of matrices (B, r, r), accurate for small M where r is 1 or 2."""
    m = m.to(torch.promote_types(m.dtype, torch.float32))
    trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)
    match m.shape[-1]:
        case 1:
            return trace.log1p()
        case 2:
            determinant = m[..., 0, 0] * m[..., 1, 1] - m[..., 0, 1] * m[..., 1, 0]
            return (trace + determinant).log1p()
        case r:
            eye = torch.eye(r, dtype=m.dtype, device=m.device)
            return torch.linalg.slogdet(eye + m).logabsdet
