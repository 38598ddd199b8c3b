"""The linear maps against dense matrices: products, transposed ones, and gradients."""

from __future__ import annotations

import pytest
import torch

from iresnet_flows.maps.linear import Convolution, Matrix

MAPS = {
    "matrix": (lambda: Matrix(torch.randn(3, 5).double()), (5,), (3,)),
    **{
        f"kernel {k}, image {h} x {w}": (
            lambda k=k: Convolution(torch.randn(3, 2, k, k).double()),
            (2, h, w),
            (3, h, w),
        )
        for k in (1, 3, 5)
        for h, w in ((1, 1), (2, 1), (3, 3), (5, 4))
    },
}

each_map = pytest.mark.parametrize(("make", "inputs", "outputs"), MAPS.values(), ids=MAPS)


def dense(linear, inputs):
    """The matrix, by finite differences of a linear map: its values at the unit vectors."""
    size = torch.Size(inputs).numel()
    return linear(torch.eye(size, dtype=torch.float64).reshape(size, *inputs)).flatten(1).mT


@each_map
@pytest.mark.parametrize("leading", [(4,), (2, 4), (0,), (2, 0)])
def test_the_transposed_map_is_that_of_the_transposed_matrix(make, inputs, outputs, leading):
    linear = make()
    w = torch.randn(*leading, *outputs, dtype=torch.float64)
    result = linear.transposed(w)
    assert result.shape == (*leading, *inputs)
    expected = w.flatten(len(leading)) @ dense(linear, inputs)
    torch.testing.assert_close(result.flatten(len(leading)), expected)


@each_map
@pytest.mark.parametrize("leading", [(4,), (2, 4), (0,), (2, 0)])
def test_the_cotangent_is_the_gradient_of_the_inner_product(make, inputs, outputs, leading):
    linear = make()
    w = torch.randn(*leading, *outputs, dtype=torch.float64)
    v = torch.randn(*leading, *inputs, dtype=torch.float64)
    weight = linear.weight.clone().requires_grad_()
    (w * type(linear)(weight)(v)).sum().backward()
    result = linear.cotangent(w, v)
    torch.testing.assert_close(result, weight.grad)


@each_map
def test_a_bias_is_one_for_all_or_one_for_each(make, inputs, outputs):
    linear = make()
    x = torch.randn(4, *inputs, dtype=torch.float64)
    for bias in (torch.randn(3).double(), torch.randn(4, 3).double()):
        spread = bias.reshape(*bias.shape, *[1] * (len(outputs) - 1))
        torch.testing.assert_close(linear(x, bias), linear(x) + spread)


@each_map
def test_the_products_map_over_a_leading_dimension(make, inputs, outputs):
    linear = make()
    w = torch.randn(3, 2, 4, *outputs, dtype=torch.float64)
    v = torch.randn(3, 2, 4, *inputs, dtype=torch.float64)
    mapped = torch.func.vmap(linear.transposed)(w)
    torch.testing.assert_close(mapped, torch.stack([linear.transposed(each) for each in w]))
    mapped = torch.func.vmap(linear.cotangent)(w, v)
    expected = torch.stack([linear.cotangent(a, b) for a, b in zip(w, v, strict=True)])
    torch.testing.assert_close(mapped, expected)
