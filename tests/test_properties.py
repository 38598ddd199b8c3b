"""Promises at whatever hypothesis thinks of: sizes, activations, bounds, scales and dtypes."""

from __future__ import annotations

import math

import pytest
import torch
from cases import ACTIVATIONS
from hypothesis import given, settings
from hypothesis import strategies as st

from iresnet_flows import (
    CayleyBlock,
    Exact,
    InvertibleResidualBlock,
    LipschitzConvNet,
    LipschitzDenseNet,
    LipschitzMLP,
    PowerSeries,
)
from iresnet_flows.lipschitz import (
    LipschitzElementwise,
    convolution_norm_bound,
    spectral_norm_bound,
)

pytestmark = pytest.mark.numerics

thorough = settings(deadline=None, max_examples=150, derandomize=True, database=None)

dtypes = st.sampled_from([torch.float32, torch.float64])
bounds = st.floats(0.01, 0.99)
scales = st.floats(-4, 3).map(lambda power: 10.0**power)
seeds = st.integers(0, 1000)
kernels = st.sampled_from([1, 3, 5])


@st.composite
def branches(draw):
    """A branch whose weights have any scale, with points at any distance and a context."""
    torch.manual_seed(draw(seeds))
    widths = draw(st.lists(st.integers(1, 5).map(lambda k: 2 * k), min_size=1, max_size=3))
    options = {
        "lipschitz": draw(bounds),
        "activation": draw(st.sampled_from(ACTIVATIONS)),
        "context_features": draw(st.sampled_from([None, 1, 3])),
    }
    kind = draw(st.sampled_from(["mlp", "dense", "elementwise", "convolutions"]))
    d = draw(st.integers(1, 6))
    if kind == "convolutions":
        sizes = [draw(kernels) for _ in range(len(widths) + 1)]
        event = (min(d, 2), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        g = LipschitzConvNet(event[0], widths, sizes, **options)
    elif kind == "elementwise":
        event = (d,)
        g = LipschitzElementwise(d, widths[0], **options)
    else:
        event = (d,)
        g = (LipschitzMLP if kind == "mlp" else LipschitzDenseNet)(d, widths, **options)

    dtype = draw(dtypes)
    g = g.to(dtype)
    with torch.no_grad():
        for parameter in g.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        for weight in g.weights:
            weight.mul_(draw(scales))
    x = draw(st.floats(-2, 1.5).map(lambda power: 10.0**power)) * torch.randn(6, *event)
    features = g.context_features
    context = None if features is None else 3 * torch.randn(6, features, dtype=dtype)
    return g, x.to(dtype), context


def jacobians(g, x, context, dtype=torch.float64):
    residual = g.at(context).to(dtype)
    jacobian = torch.autograd.functional.jacobian(
        lambda t: residual(t).sum(0).flatten(), x.to(dtype)
    )
    return jacobian.transpose(0, 1).flatten(2).double()


@thorough
@given(branches())
def test_the_jacobian_is_below_the_bound_and_that_below_the_limit(drawn):
    g, x, context = drawn
    norms = torch.linalg.matrix_norm(jacobians(g, x, context), 2)
    assert norms.max() <= g.lipschitz_bound() * (1 + 1e-12)
    assert g.lipschitz_bound() <= g.lipschitz


@thorough
@given(branches())
def test_the_inverse_is_certified_and_near(drawn):
    g, x, context = drawn
    block, bound = InvertibleResidualBlock(g, Exact()), float(g.lipschitz_bound())
    y = x.double() + g.at(context).to(torch.float64)(x.double())
    solution = block.solve(y.to(x.dtype), context)
    error = (solution.value.double() - x.double()).flatten(1).norm(dim=1)
    rounded = (y - y.to(x.dtype).double()).flatten(1).norm(dim=1)
    rounded += 1e-14 * (1 + y.flatten(1).norm(dim=1))
    assert solution.converged.all()
    assert (error <= solution.error_bound.double() * (1 + 1e-6) + rounded / (1 - bound)).all()


@thorough
@given(branches())
def test_the_log_dets_are_those_of_the_dense_jacobian(drawn):
    g, x, context = drawn
    jacobian, eye = jacobians(g, x, context), torch.eye(x[0].numel(), dtype=torch.float64)
    plus, minus = (torch.linalg.slogdet(eye + s * jacobian) for s in (1, -1))
    assert (plus.sign == 1).all()
    bound, d = float(g.lipschitz_bound()), x[0].numel()
    assert (plus.logabsdet <= d * math.log1p(bound) * (1 + 1e-12) + 1e-14).all()
    assert (plus.logabsdet >= d * math.log1p(-bound) * (1 + 1e-12) - 1e-14).all()

    # By autograd in the same dtype, for a steep layer's own rounding may turn its phase around.
    expected = torch.linalg.slogdet(eye + jacobians(g, x, context, x.dtype)).logabsdet
    rounding = 1e3 * torch.finfo(x.dtype).eps * d / (1 - bound)
    value = InvertibleResidualBlock(g, Exact())(x, context)[1]
    assert (value - expected).abs().max() <= rounding

    # With w at the points x; the map moves by 1 / (1 - L) where w does.
    block = CayleyBlock(g.double(), Exact())
    w = x.double()
    given_context = None if context is None else context.double()
    value = block((w + g(w, given_context)) / math.sqrt(2), given_context)[1]
    jacobian = jacobians(g, w, given_context)
    plus, minus = (torch.linalg.slogdet(eye + s * jacobian)[1] for s in (1, -1))
    torch.testing.assert_close(value, minus - plus, rtol=1e-4, atol=1e-6)


@thorough
@given(branches(), st.sampled_from([1, 2, 7]))
def test_the_series_is_within_its_certificate_for_the_probes_that_it_drew(drawn, terms):
    g, x, context = drawn
    g = g.double()
    x, context = x.double(), None if context is None else context.double()
    _, jacobian = g.at(context).linearize(x)
    bound = g.lipschitz_bound()
    count = min(3000, terms + math.ceil(30 / -math.log(min(float(bound), 0.99))))

    def draw(count):
        generator = torch.Generator().manual_seed(1)
        return PowerSeries(terms=count).draw(jacobian, x, bound, generator)

    short, long = draw(terms), draw(count)
    slack = 1e-9 * (1 + short.totals.abs())
    assert ((short.totals - long.totals).abs() <= short.bias_bound + slack).all()


@thorough
@given(seeds, st.integers(1, 40), st.integers(1, 40), scales, dtypes, st.integers(1, 5))
def test_the_norm_of_a_matrix_is_bounded_closely(seed, m, n, scale, dtype, rank):
    torch.manual_seed(seed)
    weight = torch.randn(m, rank, dtype=dtype) @ torch.randn(rank, n, dtype=dtype)
    weight = weight * scale + 1e-3 * scale * torch.randn(m, n, dtype=dtype)
    truth = torch.linalg.matrix_norm(weight.double(), 2)
    bound = spectral_norm_bound(weight)
    assert truth <= bound * (1 + 1e-12)
    assert bound <= truth * 1.01


@thorough
@given(seeds, st.integers(1, 3), st.integers(1, 3), kernels, scales, dtypes)
def test_the_norm_of_a_convolution_is_bounded_on_every_small_image(
    seed, out, into, size, scale, dtype
):
    torch.manual_seed(seed)
    kernel = scale * torch.randn(out, into, size, size, dtype=dtype)
    eye = torch.eye(into * 20, dtype=torch.float64).reshape(-1, into, 4, 5)
    columns = torch.nn.functional.conv2d(eye, kernel.double(), padding=size // 2).flatten(1)
    truth, bound = torch.linalg.matrix_norm(columns, 2), convolution_norm_bound(kernel)
    assert truth <= bound * (1 + 1e-12)
    assert bound <= 3 * truth
