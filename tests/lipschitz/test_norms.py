"""The certified norm: a bound from both sides, and its derivatives."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from iresnet_flows import LipschitzConvNet, LipschitzMLP
from iresnet_flows.lipschitz import LipschitzElementwise, spectral_norm_bound

SHAPES = [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5), (16, 16), (64, 64), (64, 2), (2, 64), (130, 64)]


def orthogonal(m: int, n: int) -> torch.Tensor:
    return torch.nn.init.orthogonal_(torch.empty(m, n, dtype=torch.float64))


MATRICES = {
    **{f"normal {m} x {n}": lambda m=m, n=n: torch.randn(m, n).double() for m, n in SHAPES},
    **{f"orthogonal {m} x {n}": lambda m=m, n=n: orthogonal(m, n) for m, n in SHAPES},
    "rank one": lambda: torch.outer(torch.randn(9), torch.randn(6)).double(),
    "two that nearly coincide": lambda: torch.diag(torch.tensor([1.0, 1.0 - 1e-9, 0.1]).double()),
    "ill conditioned": lambda: torch.diag(torch.logspace(0, -30, 20, dtype=torch.float64)),
    "huge": lambda: 1e120 * torch.randn(8, 5, dtype=torch.float64),
    "tiny": lambda: 1e-120 * torch.randn(8, 5, dtype=torch.float64),
    "huge in float32": lambda: 1e37 * torch.randn(8, 5),
    "tiny in float32": lambda: 1e-37 * torch.randn(8, 5),
    "one entry": lambda: torch.eye(6, dtype=torch.float64)[:1] * torch.eye(6)[:, :1].double(),
}


@pytest.mark.parametrize("make", MATRICES.values(), ids=MATRICES)
def test_the_bound_is_never_below_the_norm_and_at_most_a_quarter_percent_above(make):
    weight = make()
    truth = torch.linalg.matrix_norm(weight.double(), 2)
    bound = spectral_norm_bound(weight)
    assert bound.dtype == torch.float64
    assert bound >= truth * (1 - 1e-15)
    assert bound <= 1.0025 * truth


@pytest.mark.parametrize("shape", [(64, 64), (128, 256), (256, 100), (300, 1)])
@pytest.mark.parametrize("init", [torch.nn.init.normal_, torch.nn.init.orthogonal_])
def test_rounding_in_float32_raises_the_bound_by_little(init, shape):
    weight = init(torch.empty(shape))
    truth = torch.linalg.matrix_norm(weight.double(), 2)
    assert truth <= spectral_norm_bound(weight) <= 1.01 * truth


def test_a_wide_isometry_in_float32_has_a_bound():
    """The powers of its scaled Gram matrix are as small as they can be."""
    assert 1 <= spectral_norm_bound(torch.eye(768)) <= 1.1


def test_a_stack_has_the_bound_of_its_largest_matrix():
    stack = torch.randn(6, 4, 3, dtype=torch.complex128)
    truth = torch.linalg.matrix_norm(stack, 2).max()
    assert truth <= spectral_norm_bound(stack) <= 1.005 * truth
    isometries = torch.eye(16, dtype=torch.complex64).expand(200, 16, 16)
    assert 1 <= spectral_norm_bound(isometries) <= 1.01


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 5, 3)])
def test_a_stack_has_any_number_of_dimensions(shape):
    stack = torch.randn(shape, dtype=torch.float64)
    truth = torch.linalg.matrix_norm(stack, 2).max()
    assert truth <= spectral_norm_bound(stack) <= 1.0025 * truth


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (torch.ones(3), ValueError, r"shape \(\*, m, n\) and entries, got \(3,\)"),
        (torch.ones(0, 3), ValueError, r"shape \(\*, m, n\) and entries, got \(0, 3\)"),
        ([[1.0]], TypeError, "weight must be a tensor, got list"),
    ],
)
def test_what_has_no_spectral_norm_is_refused(weight, error, message):
    with pytest.raises(error, match=message):
        spectral_norm_bound(weight)


def test_products_of_reduced_precision_do_not_break_the_bound():
    weight = torch.randn(128, 200)
    truth = torch.linalg.matrix_norm(weight.double(), 2)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert truth <= spectral_norm_bound(weight) <= 1.0025 * truth
    finally:
        torch.set_float32_matmul_precision(before)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert truth <= spectral_norm_bound(weight) <= 1.01 * truth


def test_the_bound_is_never_below_the_norm_over_many_draws():
    for _ in range(200):
        m, n = torch.randint(1, 12, (2,)).tolist()
        weight = torch.randn(m, n, dtype=torch.float64)
        truth = torch.linalg.matrix_norm(weight, 2)
        assert truth * (1 - 1e-15) <= spectral_norm_bound(weight) <= 1.0025 * truth


def test_the_bound_of_zero_is_zero_and_has_a_gradient():
    weight = torch.zeros(4, 3, requires_grad=True)
    bound = spectral_norm_bound(weight)
    assert 0 <= bound <= 1e-50
    bound.backward()
    assert weight.grad.isfinite().all()


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_weight_that_is_not_finite_has_the_bound_nan(value):
    weight = torch.randn(4, 3)
    weight[1, 2] = value
    assert spectral_norm_bound(weight).isnan()


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_the_gradient_is_that_of_the_largest_singular_value(shape):
    weight = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(spectral_norm_bound(weight), weight)
    (truth,) = torch.autograd.grad(torch.linalg.matrix_norm(weight, 2), weight)
    torch.testing.assert_close(gradient, truth, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "weight",
    [torch.eye(3), torch.ones(2, 3), torch.diag(torch.tensor([1.0, 1.0, 0.999]))],
    ids=["identity", "ones", "nearly coinciding"],
)
def test_both_derivatives_exist_where_singular_values_coincide(weight):
    weight = weight.double().requires_grad_()
    assert torch.autograd.gradcheck(spectral_norm_bound, weight, eps=1e-8, atol=1e-5)
    assert torch.autograd.gradgradcheck(spectral_norm_bound, weight, eps=1e-8, atol=1e-3)


def test_the_bound_maps_over_a_leading_dimension():
    weights = torch.randn(4, 3, 5)
    mapped = torch.func.vmap(spectral_norm_bound)(weights)
    torch.testing.assert_close(mapped, torch.stack([spectral_norm_bound(w) for w in weights]))


def true_product(g):
    maps = [m.weight.detach().double() for m in g.at().maps]
    if isinstance(g, LipschitzElementwise):
        inner, outer = maps
        return (
            (inner.abs() * outer.unflatten(0, (g.activations[0].copies, -1)).norm(dim=0))
            .sum(0)
            .max()
        )
    return math.prod(torch.linalg.matrix_norm(m, 2) for m in maps)


@pytest.mark.parametrize(
    "make", [partial(LipschitzMLP, 4, (4, 4)), partial(LipschitzElementwise, 4, 4)]
)
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        *((torch.float16, size) for size in (1, 30, 60, 100, 300)),
        *((torch.bfloat16, size) for size in (1, 1e6, 1e15)),
        *((torch.float32, size) for size in (1, 1e13, 1e14, 1e16, 1e19)),
        *((torch.float64, size) for size in (1, 1e100, 1e150)),
    ],
)
def test_weights_so_large_that_the_last_one_turns_tiny_keep_the_bound(make, dtype, size):
    g = make().to(dtype)
    with torch.no_grad():
        for weight in g.weights:
            weight.copy_(size * torch.randn(weight.shape, dtype=torch.float64))
    assert float(true_product(g)) <= float(g.lipschitz_bound()) <= 0.9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "make", [partial(LipschitzMLP, 64, (128, 128)), partial(LipschitzConvNet, 3, (64, 64))]
)
def test_few_digits_cost_little_of_the_bound(make, dtype):
    g = make()
    with torch.no_grad():
        for weight in g.weights:
            weight.mul_(20)
    before = g.at().maps[-1].weight.norm()
    after = g.to(dtype).at().maps[-1].weight.float().norm()
    assert 0.9 * before <= after <= before


def test_precisions_of_single_backends_are_no_obstacle(monkeypatch):
    def refuse():
        raise RuntimeError("PyTorch is checking the matmul precision without a backend name")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    weight = torch.randn(64, 64)
    bound = spectral_norm_bound(weight)
    assert bound >= torch.linalg.matrix_norm(weight.double(), 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of dynamo, about itself
def test_a_compiled_bound_does_not_rely_on_the_precision_of_its_time():
    weight = torch.randn(64, 64)
    torch._dynamo.reset()
    bound = torch.compile(spectral_norm_bound, backend="eager", fullgraph=True)(weight)
    assert bound == spectral_norm_bound(weight.double())
