"""Certified bounds of a convolution's norm, for images of every size."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iresnet_flows.lipschitz.norms import Norm, matrix_norm

__all__ = ["convolution_norm", "convolution_norm_bound"]

DENSITY = 16  # frequencies for each degree of the symbol: a factor of at most 1.04


def convolution_norm_bound(weight: Tensor) -> Tensor:
    r"""An upper bound of a convolution's norm, for images of every size, smooth in the kernel.

    Zero padding cuts a block out of the convolution of the whole plane, whose norm is that of its
    symbol at the worst frequency:

    .. math:: \|K\| \leq \sup_\theta \|K(\theta)\|_2 , \quad
              K(\theta) = \sum_\delta K_\delta\, e^{i \delta \cdot \theta} .

    For fixed u, v of norm one the real part of :math:`u^* K(\theta) v`, in any phase, is a real
    trigonometric polynomial of degree :math:`r = (k - 1) / 2` in each coordinate, and is at most
    :math:`1 / \cos(\pi r / N)` times its largest size on N equidistant points, in one coordinate
    after the other:

    .. math:: \sup_\theta \|K(\theta)\|_2 \leq \cos(\pi r / N)^{-2}
              \max_{\theta \in \text{grid}} \|K(\theta)\|_2 , \quad N = 16 r > 2 r .

    The factor is 1.0396, and there are kernels that need it. The largest norm on the grid is
    bounded as `spectral_norm_bound` does it, for all frequencies at once, of which a real kernel
    needs half: 130 matrices for a kernel of size 3. A kernel of size 1 is a matrix.

    Arguments:
        weight: The kernel, with shape (m, n, k, k), k odd.

    Returns:
        The bound in float64, a scalar; NaN where the kernel is not finite.

    References:
        Ehlich and Zeller, Schwankung von Polynomen zwischen Gitterpunkten, 1964 (the factor);
        Pfister and Bresler, Bounding Multivariate Trigonometric Polynomials, 2018,
        https://arxiv.org/abs/1802.09588 (complex polynomials of several variables).

    Example:
        >>> import torch
        >>> mean = torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64)
        >>> 1 <= float(convolution_norm_bound(mean)) <= 1.045
        True
    """
    return convolution_norm(weight).bound


def convolution_norm(weight: Tensor) -> Norm:
    """That bound, with its slope."""
    *_, k = weight.shape
    if k == 1:
        bound, slope = matrix_norm(weight[..., 0, 0])
        return Norm(bound, slope[..., None, None])

    with torch.autocast(weight.device.type, enabled=False):
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        waves = plane_waves(k // 2, wide)
        bound, slope = matrix_norm(symbols(wide, waves))
        # In units of the Frobenius norm of all frequencies, which is at most k sqrt(n) norms.
        rounding = torch.finfo(wide.dtype).eps * (k * k + 2) * k * math.sqrt(min(weight.shape[:2]))
        factor = math.cos(math.pi / DENSITY) ** -2
        # The kernel's slope is that of all symbols, pulled back.
        pulled = (
            (waves.mH @ slope.flatten(1)).real.unflatten(0, (k, k)).unflatten(2, wide.shape[:2])
        )
        return Norm(bound * (factor * (1 + rounding)), pulled.permute(2, 3, 0, 1).to(weight.dtype))


def symbols(weight: Tensor, waves: Tensor) -> Tensor:
    """The symbol at half of the grid's frequencies, the conjugates of the others, (f, m, n)."""
    taps = weight.flatten(2).permute(2, 0, 1)
    return (waves @ taps.flatten(1).to(waves.dtype)).unflatten(1, taps.shape[1:])


def plane_waves(reach: int, like: Tensor) -> Tensor:
    r""":math:`e^{i \delta \cdot \theta}` for half of the frequencies, with shape (f, k^2)."""
    points = DENSITY * reach
    index = torch.arange(points * points, device=like.device)
    rows, columns = index // points, index % points
    opposite = -rows % points * points + -columns % points
    half = torch.nonzero(index <= opposite).squeeze(1)
    shift = torch.arange(-reach, reach + 1, device=like.device)
    turns = rows[half, None, None] * shift[:, None] + columns[half, None, None] * shift
    # Whole numbers modulo the number of points keep the angles exact.
    angles = 2 * math.pi / points * (turns % points).flatten(1).double()
    return torch.polar(torch.ones_like(angles), angles).to(like.dtype.to_complex())
