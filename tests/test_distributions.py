"""Layers in torch's distributions: densities, shapes, and a cache that is never stale."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch.distributions import Independent, Normal, TransformedDistribution
from transform_cases import both_sides, build, normal, points

from iresnet_flows.distributions import LayerTransform
from iresnet_flows.layers import Flatten, Squeeze


@both_sides
def test_the_density_is_that_of_the_dense_jacobian(explicit):
    transform = build(explicit)
    y = torch.randn(5, 2, dtype=torch.float64)
    log_prob = TransformedDistribution(normal(), [transform]).log_prob(y)
    x = transform.inv(y)
    inverse = torch.autograd.functional.jacobian(lambda t: transform.inv(t).sum(0), y)
    ladj = torch.linalg.slogdet(inverse.transpose(0, 1)).logabsdet
    torch.testing.assert_close(log_prob, normal().log_prob(x) + ladj, rtol=1e-8, atol=1e-8)


@both_sides
def test_the_density_integrates_to_one(explicit):
    flow = TransformedDistribution(normal(1), [build(explicit, d=1)])
    y = torch.linspace(-15, 15, 3001, dtype=torch.float64).unsqueeze(-1)
    total = torch.trapezoid(flow.log_prob(y).exp(), y.squeeze(-1))
    assert total.item() == pytest.approx(1, abs=1e-5)


@both_sides
def test_the_sides_and_their_log_dets_fit_together(explicit):
    transform = build(explicit)
    x = torch.randn(5, 2, dtype=torch.float64)
    y, ladj = transform.call_and_ladj(x)
    torch.testing.assert_close(transform(x), y)
    torch.testing.assert_close(transform.inv(y.clone()), x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(transform.log_abs_det_jacobian(x, y), ladj, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(transform.inv.log_abs_det_jacobian(y, x), -ladj)


@both_sides
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3), (2, 1, 3)])
def test_any_number_of_leading_dimensions_equals_a_flat_batch(explicit, shape):
    flow = TransformedDistribution(normal(), [build(explicit)])
    y = torch.randn(*shape, 2, dtype=torch.float64)
    result = flow.log_prob(y)
    assert result.shape == shape
    torch.testing.assert_close(result.flatten(), flow.log_prob(y.reshape(-1, 2)))
    assert flow.rsample(shape).shape == (*shape, 2)


def test_a_layer_that_changes_the_shape_of_an_event_has_a_density():
    transform = LayerTransform(Squeeze(), event_dim=3)
    base = Independent(Normal(torch.arange(16.0).reshape(1, 4, 4), 1.0), 3)
    flow = TransformedDistribution(base, [transform])
    assert flow.event_shape == (4, 2, 2)
    y = flow.sample((3, 2))
    assert y.shape == (3, 2, 4, 2, 2)
    x = transform.inv(y)
    assert torch.equal(transform(x), y)
    torch.testing.assert_close(flow.log_prob(y), base.log_prob(x))
    assert transform.inv.forward_shape(y.shape) == x.shape == transform.inverse_shape(y.shape)


def test_a_layer_that_changes_the_dimensions_of_an_event_is_refused():
    with pytest.raises(ValueError, match="Flatten gives events of 1 dimensions for such of 3"):
        LayerTransform(Flatten((1, 2, 2)), event_dim=3)(torch.ones(5, 1, 2, 2))


def test_what_is_no_tensor_or_has_fewer_dimensions_than_an_event_is_refused():
    transform = build("forward")
    for side in (transform, transform.inv, transform.call_and_ladj):
        with pytest.raises(TypeError, match="x must be a tensor, got list"):
            side([1.0, 2.0])
        with pytest.raises(ValueError, match=r"the 1 dimensions of an event.* got the shape \(\)"):
            side(torch.tensor(1.0))


@both_sides
@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_no_samples_give_no_log_dets(explicit, shape):
    transform = build(explicit)
    x = torch.empty(*shape, 2, dtype=torch.float64)
    y, ladj = transform.call_and_ladj(x)
    assert y.shape == transform.inv(y).shape == x.shape
    assert ladj.shape == shape


@both_sides
def test_contexts_broadcast_against_samples(explicit):
    context = torch.randn(3, 2, dtype=torch.float64)
    transform = build(explicit, context=context)
    x = torch.randn(4, 1, 2, dtype=torch.float64)
    y = transform(x)
    assert y.shape == (4, 3, 2)
    ladj = transform.log_abs_det_jacobian(x, y)
    assert ladj.shape == (4, 3)
    for i in range(3):
        alone = LayerTransform(transform.layer, explicit, context[i])
        torch.testing.assert_close(y[:, i], alone(x[:, 0]))
        expected = alone.log_abs_det_jacobian(x[:, 0], y[:, i])
        torch.testing.assert_close(ladj[:, i], expected)


@both_sides
def test_one_dimension_has_a_distribution_function_and_quantiles(explicit):
    """Against the integral of the density."""
    flow = TransformedDistribution(
        Normal(torch.zeros(()).double(), 1.0), [build(explicit, d=1, event_dim=0)]
    )
    assert flow.event_shape == ()
    y = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    with torch.no_grad():
        density, cdf = flow.log_prob(y).exp(), flow.cdf(y)
        truth = torch.cumulative_trapezoid(density, y)
        torch.testing.assert_close(cdf[1:], truth, rtol=0, atol=1e-4)
        levels = torch.tensor([[1e-3, 0.2], [0.5, 0.99]], dtype=torch.float64)
        quantiles = flow.icdf(levels)
        torch.testing.assert_close(flow.cdf(quantiles.clone()), levels)
    exact = y[torch.searchsorted(truth, levels)]
    torch.testing.assert_close(quantiles, exact, rtol=0, atol=0.02)


@both_sides
@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (0,)])
def test_one_feature_means_the_same_with_and_without_a_dimension(explicit, shape):
    vectors = build(explicit, d=1)
    numbers = LayerTransform(vectors.layer, explicit, event_dim=0)
    x = torch.randn(shape, dtype=torch.float64)
    y, ladj = numbers.call_and_ladj(x)
    expected = vectors.call_and_ladj(x.unsqueeze(-1))
    assert torch.equal(y.unsqueeze(-1), expected[0])
    assert torch.equal(ladj, expected[1])
    assert (vectors.sign, numbers.sign) == (1, 1)


def test_more_dimensions_have_no_distribution_function():
    flow = TransformedDistribution(normal(), [build()])
    with pytest.raises(NotImplementedError):
        flow.cdf(points())


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda t: pickle.loads(pickle.dumps(t)),
}


@both_sides
@pytest.mark.parametrize("turned", [False, True], ids=["", "inv"])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_with_a_live_pair_are_the_same_transform(explicit, turned, copied):
    transform = build(explicit, context=points(2))
    if turned:
        transform = transform.inv
    x = points()
    y = transform(x)
    other = copied(transform)
    assert other.explicit == transform.explicit
    assert other.inv.inv is other
    assert other(x) is not y
    torch.testing.assert_close(other(x), y, rtol=0, atol=0)
    torch.testing.assert_close(other.inv(y.clone()), x, rtol=1e-8, atol=1e-8)
    assert (other.layer is transform.layer) == (copied is copy.copy)


def test_pickles_need_no_host():
    """In a process of its own, where nobody has patched torch's transforms."""
    program = """
import pickle, sys
import torch
from transform_cases import build, points

torch.manual_seed(0)
transform, x = build(), points()
y = transform(x)
assert transform.inv(y) is x
for t, a, b in ((transform, x, y), (transform.inv, y, x)):
    other = pickle.loads(pickle.dumps(t))
    assert torch.allclose(other(a), b)
    assert torch.allclose(other.inv(b), a)
assert "pyro" not in sys.modules
"""
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


@both_sides
def test_the_inverse_is_the_same_layer_explicit_on_the_other_side(explicit):
    transform, x = build(explicit), points()
    inverse = transform.inv
    assert inverse.inv is transform
    assert transform.inv is inverse
    assert inverse.layer is transform.layer
    assert inverse.explicit != explicit
    assert inverse.with_cache(0).inv.with_cache(0).explicit == explicit
    alone = LayerTransform(transform.layer, inverse.explicit)
    assert torch.equal(inverse(x), alone(x))
    y = transform(x)
    assert inverse(y) is x
    inverse.clear_cache()
    assert inverse(y) is not x


def test_an_inverse_outlives_the_transform_that_it_came_from():
    inverse, x = build().inv, points()
    y = inverse(x)
    assert inverse.inv(y) is x


@both_sides
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_a_layer_may_change_its_dtype_while_a_pair_is_kept(explicit, dtype):
    transform, x = build(explicit), points()
    transform(x)
    transform.layer.to(dtype)
    y, ladj = transform.call_and_ladj(x.to(dtype))
    assert (y.dtype, ladj.dtype) == (dtype, dtype)
    torch.testing.assert_close(transform.inv(y.clone()), x.to(dtype), rtol=0, atol=1e-5)


def test_no_pair_is_kept_of_points_that_a_context_has_broadcast():
    transform = build(context=points(3, 2))
    x = points(2)
    y = transform(x)
    assert transform.inv(y).shape == y.shape == (3, 2)


def test_what_is_no_layer_or_no_context_is_refused():
    layer = build().layer
    with pytest.raises(TypeError, match=r"InvertibleResidualBlock\(branch\).*got LipschitzMLP"):
        LayerTransform(layer.branch)
    with pytest.raises(TypeError, match="context must be a tensor, got list"):
        LayerTransform(layer, context=[0.0])
    with pytest.raises(ValueError, match="event_dim must be at least 0, got -1"):
        LayerTransform(layer, event_dim=-1)
    with pytest.raises(ValueError, match=r"\(5,\) of x .* \(3,\) of the context"):
        build(context=points(3, 2))(points())


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="explicit must be 'forward' or 'inverse', got 'both'"):
        build("both")


@both_sides
def test_gradients_reach_the_parameters_through_density_and_sample(explicit):
    transform = build(explicit)
    flow = TransformedDistribution(normal(), [transform])
    for loss in (
        lambda: flow.log_prob(torch.ones(3, 2).double()).sum(),
        lambda: flow.rsample((3,)).sum(),
    ):
        transform.layer.zero_grad()
        loss().backward()
        assert transform.layer.branch.weights[0].grad.abs().max() > 0
