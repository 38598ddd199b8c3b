"""The certified norm of a convolution: a bound from both sides, for images of every size."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from iresnet_flows.lipschitz import convolution_norm_bound, spectral_norm_bound

KERNELS = {
    **{
        f"{init.__name__[:-1]} {m} x {n} x {k} x {k}": lambda m=m, n=n, k=k, init=init: init(
            torch.empty(m, n, k, k, dtype=torch.float64)
        )
        for init in (torch.nn.init.normal_, torch.nn.init.orthogonal_)
        for m, n, k in ((1, 1, 3), (2, 3, 3), (8, 2, 3), (4, 4, 3), (2, 2, 5), (1, 2, 7))
    },
    "mean": lambda: torch.full((1, 1, 3, 3), 1 / 9, dtype=torch.float64),
    "high frequency": lambda: torch.tensor([[[[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]]]).double(),
    "one tap": lambda: F.pad(torch.randn(3, 2, 1, 1).double(), (2, 0, 0, 2)),
    "huge": lambda: 1e100 * torch.randn(2, 3, 3, 3, dtype=torch.float64),
    "tiny": lambda: 1e-100 * torch.randn(2, 3, 3, 3, dtype=torch.float64),
    "huge in float32": lambda: 5e37 * torch.randn(2, 3, 3, 3).clamp(-3, 3),
    "tiny in float32": lambda: 1e-36 * torch.randn(2, 3, 3, 3),
}

each_kernel = pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS)


def operator(kernel: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The dense matrix of the zero-padded convolution."""
    n, size = kernel.shape[1], kernel.shape[1] * height * width
    eye = torch.eye(size, dtype=kernel.dtype).reshape(size, n, height, width)
    return F.conv2d(eye, kernel, padding=kernel.shape[-1] // 2).flatten(1).mT


def supremum(kernel: torch.Tensor, points: int = 180) -> torch.Tensor:
    """The norm of the symbol on a grid so fine that nothing is missed, by its definition."""
    angles = 2 * math.pi / points * torch.arange(points).double()
    shifts = torch.arange(kernel.shape[-1]).double()
    waves = torch.polar(torch.ones(points, len(shifts)).double(), angles[:, None] * shifts)
    symbols = torch.einsum("ya,xb,mnab->yxmn", waves, waves, kernel.to(waves.dtype))
    return torch.linalg.matrix_norm(symbols, 2).max()


@each_kernel
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (5, 5), (7, 4), (1, 12), (11, 11)])
def test_the_bound_is_above_the_norm_of_the_dense_matrix_at_every_size(make, height, width):
    kernel = make()
    truth = torch.linalg.matrix_norm(operator(kernel.double(), height, width), 2)
    assert convolution_norm_bound(kernel) >= truth * (1 - 1e-14)


@each_kernel
def test_the_bound_is_at_most_a_few_percent_above_the_norm_on_the_plane(make):
    kernel = make()
    truth = supremum(kernel.double())
    bound = convolution_norm_bound(kernel)
    assert bound.dtype == torch.float64
    assert truth <= bound <= 1.045 * truth


def test_the_norm_of_a_large_image_comes_near_to_the_bound():
    kernel = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    truth = torch.linalg.matrix_norm(operator(kernel, 30, 30), 2)
    assert truth <= convolution_norm_bound(kernel) <= 1.055 * truth


@pytest.mark.parametrize("reach", [1, 2])
def test_no_smaller_factor_would_do_for_the_grid(reach):
    """The product of two cosines that are largest half way between the points of the grid."""
    points = 16 * reach
    angles = 2 * math.pi / points * (torch.arange(points).double() + 0.5)
    on_grid = (reach * angles).cos().abs().max().square()
    assert float(on_grid) == pytest.approx(math.cos(math.pi / 16) ** 2, rel=1e-12)


@pytest.mark.parametrize("shape", [(64, 12, 3, 3), (12, 64, 3, 3), (32, 32, 3, 3), (3, 16, 5, 5)])
@pytest.mark.parametrize("init", [torch.nn.init.normal_, torch.nn.init.orthogonal_])
def test_rounding_in_float32_raises_the_bound_by_little(shape, init):
    kernel = init(torch.empty(shape))
    exact = convolution_norm_bound(kernel.double())
    assert exact / 1.005 <= convolution_norm_bound(kernel) <= 1.01 * exact
    assert convolution_norm_bound(kernel) >= supremum(kernel.double(), 60)


def test_a_kernel_of_size_one_is_a_matrix():
    kernel = torch.randn(4, 3, 1, 1)
    assert convolution_norm_bound(kernel) == spectral_norm_bound(kernel[..., 0, 0])


@pytest.mark.parametrize("shape", [(2, 2, 3, 1), (2, 2, 1, 3), (2, 2, 2, 2), (2, 2, 3)])
def test_a_kernel_that_is_not_square_and_odd_is_refused(shape):
    with pytest.raises(ValueError, match="with odd k, got"):
        convolution_norm_bound(torch.ones(shape))


def test_products_of_reduced_precision_do_not_break_the_bound():
    kernel = torch.randn(4, 3, 3, 3)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert supremum(kernel.double()) <= convolution_norm_bound(kernel)
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert convolution_norm_bound(kernel) >= supremum(kernel.double())


def test_the_bound_of_zero_is_zero_and_has_a_gradient():
    kernel = torch.zeros(2, 3, 3, 3, requires_grad=True)
    bound = convolution_norm_bound(kernel)
    assert 0 <= bound <= 1e-30
    bound.backward()
    assert kernel.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_kernel_that_is_not_finite_has_the_bound_nan(value):
    kernel = torch.randn(4, 3, 3, 3)
    kernel[1, 2, 0, 1] = value
    assert convolution_norm_bound(kernel).isnan()


@pytest.mark.parametrize("shape", [(2, 3, 3, 3), (3, 2, 3, 3), (1, 1, 5, 5), (3, 2, 1, 1)])
def test_both_derivatives_are_those_of_finite_differences(shape):
    kernel = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(convolution_norm_bound, kernel, atol=1e-6)
    assert torch.autograd.gradgradcheck(convolution_norm_bound, kernel, eps=1e-7, atol=1e-3)


def test_the_bound_maps_over_a_leading_dimension():
    kernels = torch.randn(4, 2, 3, 3, 3)
    mapped = torch.func.vmap(convolution_norm_bound)(kernels)
    expected = torch.stack([convolution_norm_bound(k) for k in kernels])
    torch.testing.assert_close(mapped, expected)
