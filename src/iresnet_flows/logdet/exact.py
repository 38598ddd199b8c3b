"""The log-determinant itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from iresnet_flows.logdet.estimates import LogDet
from iresnet_flows.logdet.functions import RESIDUAL, Function
from iresnet_flows.logdet.gradients import with_gradient
from iresnet_flows.maps.jacobians import Jacobian
from iresnet_flows.maps.matrices import inverse_plus_identity
from iresnet_flows.precision import full_precision

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
        function: Function = RESIDUAL,
    ) -> Function:
        """What is measured; nothing is drawn."""
        return function

    def attach(self, draw: Function, jacobian: Jacobian) -> LogDet:
        if jacobian.narrows() or not torch.is_grad_enabled():
            with full_precision(jacobian.tensors[0]):
                value = measure(draw, jacobian.core())
        else:
            value = self.measure_with_gradient(draw, jacobian)
        zero = torch.zeros_like(value)
        return LogDet(value, zero, zero)

    def measure_with_gradient(self, function: Function, jacobian: Jacobian) -> Tensor:
        r"""The value whose gradient is :math:`\sum_i w_i^\top \partial J\, e_i`.

        The weights are the rows of :math:`f'(J)`, so that nothing of the determinant's own
        computation is kept.
        """
        with torch.no_grad(), full_precision(jacobian.tensors[0]):
            v = jacobian.basis()
            dense, steps = jacobian.dense_in_steps()
            value = measure(function, dense.unsqueeze(1))
            w = derivative_rows(function, dense).reshape(len(v), *jacobian.batch_event)
        weigh = partial(rows_of, function)
        total = with_gradient(jacobian, weigh, value[None], v, w, value.new_zeros(0), steps)
        return total.squeeze(0)


def measure(function: Function, m: Tensor) -> Tensor:
    """The function of all matrices (B, n, r, r) of a sample together."""
    return combined(lambda x: logdet_plus_identity(x).sum(1), m, function.plus, function.minus)


def derivative_rows(function: Function, m: Tensor) -> Tensor:
    """The rows of its derivative, (r, B, r)."""
    rows = combined(inverse_plus_identity, m, function.plus, -function.minus)
    return rows.transpose(0, 1)


def combined(of: Callable[[Tensor], Tensor], m: Tensor, plus: float, minus: float) -> Tensor:
    """plus f(M) + minus f(-M), which is f(M) alone for a residual block."""
    if (plus, minus) == (1, 0):
        return of(m)
    return plus * of(m) + minus * of(-m)


def rows_of(function: Function, jacobian: Jacobian, v: Tensor, _: Tensor) -> Tensor:
    rows = derivative_rows(function, jacobian.dense())
    return rows.reshape(len(v), *jacobian.batch_event).to(v.dtype)


def logdet_plus_identity(m: Tensor) -> Tensor:
    """log|det(I + M)| of matrices (..., r, r), accurate for small M where r is 1 or 2."""
    m = m.to(torch.promote_types(m.dtype, torch.float32))
    match m.shape[-1]:
        case 1:
            return m[..., 0, 0].log1p()
        case 2:
            a, b, c, d = m.flatten(-2).unbind(-1)
            return (a + d + (a * d - b * c)).log1p()
        case r:
            eye = torch.eye(r, dtype=m.dtype, device=m.device)
            return torch.linalg.slogdet(eye + m).logabsdet
