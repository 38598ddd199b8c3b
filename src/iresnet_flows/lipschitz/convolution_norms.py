"""Certified bounds of a convolution's norm, for images of every size."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from iresnet_flows.lipschitz.norms import Bounds, scaled, schatten_norms
from iresnet_flows.precision import full_precision

__all__ = ["convolution_norm_bound", "convolution_norms"]

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

    Raises:
        ValueError: The kernel is not square or its size is even.

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
    if weight.dim() != 4 or weight.shape[2] != weight.shape[3] or weight.shape[3] % 2 == 0:
        raise ValueError(
            f"weight must have the shape (m, n, k, k) with odd k, got {tuple(weight.shape)}."
        )
    return convolution_norms([weight]).values[0]


def convolution_norms(weights: Sequence[Tensor]) -> Bounds:
    """Those bounds, with their slopes."""
    operators = [operator(weight) for weight in weights]
    values, slopes = schatten_norms([o.stack for o in operators])
    factors = torch.stack([o.factor for o in operators])
    return Bounds(
        values * factors, tuple(o.pull(slope) for o, slope in zip(operators, slopes, strict=True))
    )


def operator(weight: Tensor) -> Pixelwise | Spectrum:
    return Pixelwise(weight) if weight.shape[-1] == 1 else Spectrum(weight)


class Pixelwise:
    """A kernel of size 1: the same matrix at each pixel."""

    def __init__(self, weight: Tensor) -> None:
        self.dtype = weight.dtype
        unit, self.scale = scaled(weight[..., 0, 0])
        self.stack, self.factor = unit.unsqueeze(0), self.scale.double()

    def pull(self, slope: Tensor) -> Tensor:
        return (slope.squeeze(0) / self.scale).to(self.dtype)[..., None, None]


class Spectrum:
    """A kernel of another size: its symbol at half of the grid's frequencies, (f, m, n).

    Attributes:
        stack: The symbol, in units of the kernel's largest entry.
        factor: By how much the kernel's norm may be above the largest of the stack.
    """

    def __init__(self, weight: Tensor) -> None:
        m, n, k, _ = self.shape = weight.shape
        self.dtype = weight.dtype
        with full_precision(weight):
            wide, self.scale = scaled(weight, few=False)
            self.waves = plane_waves(k // 2, DENSITY * (k // 2), wide)
            taps = wide.flatten(2).permute(2, 0, 1).flatten(1)
            self.stack = (self.waves @ taps.to(self.waves.dtype)).unflatten(1, (m, n))
        # In units of the Frobenius norm of all frequencies, which is at most k sqrt(n) norms.
        unit = torch.finfo(self.waves.dtype).eps
        rounding = unit * (k * k + 2) * k * math.sqrt(min(m, n))
        self.factor = self.scale.double() * (math.cos(math.pi / DENSITY) ** -2 * (1 + rounding))

    def pull(self, slope: Tensor) -> Tensor:
        """The slope of the kernel from that of the symbol."""
        m, n, k, _ = self.shape
        taps = (self.waves.mH @ slope.flatten(1)).real / self.scale
        return taps.reshape(k, k, m, n).permute(2, 3, 0, 1).to(self.dtype)


def plane_waves(reach: int, points: int, like: Tensor) -> Tensor:
    r""":math:`e^{i \delta \cdot \theta}` for one of each pair of opposite frequencies."""
    grid = [divmod(index, points) for index in range(points * points)]
    half = [(a, b) for a, b in grid if (a, b) <= (-a % points, -b % points)]
    rows, columns = torch.tensor(half, device=like.device)[..., None, None].unbind(1)
    shift = torch.arange(-reach, reach + 1, device=like.device)
    # Whole numbers modulo the number of points keep the angles exact.
    turns = (rows * shift[:, None] + columns * shift) % points
    angles = 2 * math.pi / points * turns.flatten(1).double()
    dtype = torch.complex64 if like.dtype == torch.float32 else torch.complex128
    return torch.polar(torch.ones_like(angles), angles).to(dtype)
