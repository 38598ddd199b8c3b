"""Certified bounds of a matrix's largest singular value."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["spectral_norm_bound"]

TINY = torch.finfo(torch.float64).tiny
ROOT = 32
POWER = ROOT**2


class SchattenNorm(torch.autograd.Function):
    r"""The Schatten norm of order 2m, :math:`(\operatorname{tr} G^m)^{1/2m}` with m = 1025.

    The gradient is :math:`\|W\| W K` with :math:`K = G^{m-1} / \operatorname{tr} G^m`, a smooth
    stand-in for the projector on the leading singular vector. Made of products alone it has
    derivatives of its own, also where singular values coincide and those of an SVD are infinite.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor) -> Tensor:
        gram = weight.mT @ weight
        power, log_scale = scaled_power(gram)
        log_trace = (power * gram).sum().clamp_min(TINY).log() + log_scale
        return (log_trace / (2 * (POWER + 1))).exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        weight, norm = ctx.saved_tensors
        gram = weight.mT @ weight
        power, _ = scaled_power(gram)  # its scale cancels
        trace = (power * gram).sum().clamp_min(TINY)
        return cotangents[0] * norm / trace * (weight @ power)


def scaled_power(gram: Tensor) -> tuple[Tensor, Tensor]:
    """G^1024 over a scale that keeps it in range, and the logarithm of that scale."""
    log_scale = gram.new_zeros(())
    for _ in range(2):
        scale = gram.detach().norm().clamp_min(TINY)
        gram = torch.linalg.matrix_power(gram / scale, ROOT)
        log_scale = ROOT * (log_scale + scale.log())
    return gram, log_scale


def spectral_norm_bound(weight: Tensor) -> Tensor:
    r"""An upper bound of the largest singular value, smooth in the weight.

    .. math:: \sigma_1 \leq \Big(\sum_i \sigma_i^{2m}\Big)^{1/2m} \leq n^{1/2m} \sigma_1 ,
              \quad m = 1025,

    with the n singular values of the smaller side: at most 0.21 % above the truth at n = 64, and
    exact to all digits where one singular value leads by 2 %. Unlike a power iteration it never
    under-estimates and keeps no state. It is computed in float64 and raised by a bound of its
    rounding error. Costs ten products of the smaller Gram matrix, and as many for the
    gradient.

    Arguments:
        weight: The matrix :math:`W`, with shape (m, n).

    Returns:
        The bound in float64, a scalar; NaN where the weight is not finite.

    References:
        Delattre et al., Efficient Bound of Lipschitz Constant for Convolutional Layers by Gram
        Iteration, 2023 (the bound by powers of the Gram matrix).

    Example:
        >>> import torch
        >>> float(spectral_norm_bound(torch.diag(torch.tensor([3.0, 2.0, 1.0])))).__round__(6)
        3.0
    """
    wide = weight.double()
    m, n = wide.shape
    # Squares of squares of the entries are taken, which must stay in range.
    scale = wide.detach().abs().amax().clamp_min(TINY)
    wide = wide / scale
    rounding = math.sqrt(min(m, n)) * (m + n) * torch.finfo(wide.dtype).eps
    return SchattenNorm.apply(wide if m >= n else wide.mT) * scale * (1 + rounding)
