"""Layers in torch's distributions: densities, shapes, and a cache that is never stale."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from cases import hostile
from torch.distributions import Independent, Normal, TransformedDistribution

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.distributions import LayerTransform

both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])


def build(explicit="forward", d=2, context=None, **kwargs) -> LayerTransform:
    features = None if context is None else context.shape[-1]
    g = LipschitzMLP(d, (8, 8), context_features=features).double()
    block = InvertibleResidualBlock(hostile(g), Exact())
    return LayerTransform(block, explicit, context, **kwargs)


def normal(d: int = 2) -> Independent:
    return Independent(Normal(torch.zeros(d).double(), torch.ones(d).double()), 1)


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
def test_the_sign_is_right_at_one_dimension(explicit):
    transform = build(explicit, d=1)
    x = torch.linspace(-12, 12, 3001, dtype=torch.float64).unsqueeze(-1)
    assert transform.sign == 1
    assert (transform(x).diff(dim=0) > 0).all()


def test_a_pair_is_used_again_while_nothing_has_changed():
    transform = build()
    x = torch.randn(5, 2, dtype=torch.float64)
    y = transform(x)
    assert transform.inv(y) is x
    assert transform(x) is y
    z = transform.inv(y + 1)
    assert transform(transform.inv(z)) is not None

    base = torch.randn(5, 2, dtype=torch.float64)
    inverse = transform.inv
    back = inverse(base)
    assert transform(back) is base


def parameter_step(transform, x, y):
    with torch.no_grad():
        transform.layer.branch.weights[0].mul_(1.5)


def optimizer_step(transform, x, y):
    y.sum().backward(retain_graph=True)
    torch.optim.SGD(transform.layer.parameters(), lr=0.1).step()


def edit_of_x(transform, x, y):
    x.add_(1)


def edit_of_y(transform, x, y):
    with torch.no_grad():
        y.add_(1)


def edit_of_context(transform, x, y):
    transform.context.add_(1)


def another_context(transform, x, y):
    transform.context = transform.context + 1


def loading(transform, x, y):
    state = {k: v + 0.1 for k, v in transform.layer.state_dict().items()}
    transform.layer.load_state_dict(state)


def backward(transform, x, y):
    y.sum().backward()


def freezing(transform, x, y):
    transform.layer.requires_grad_(requires_grad=False)


def replaced_data(transform, x, y):
    weight = transform.layer.branch.weights[0]
    weight.data = weight.data.clone() * 2


CHANGES = (
    parameter_step,
    optimizer_step,
    edit_of_x,
    edit_of_y,
    edit_of_context,
    another_context,
    loading,
    backward,
    freezing,
    replaced_data,
)


@both_sides
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_no_pair_outlives_a_change(change, explicit):
    transform = build(explicit, context=torch.randn(2, dtype=torch.float64))
    x = torch.randn(5, 2, dtype=torch.float64)
    y = transform(x)
    change(transform, x, y)
    fresh = transform.with_cache(0)
    again = transform.inv(y)
    assert again is not x
    torch.testing.assert_close(again, fresh.inv(y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(transform(x), fresh(x), rtol=1e-9, atol=1e-9)


def test_a_second_backward_through_a_pair_has_a_graph_of_its_own():
    transform = build()
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    flow = TransformedDistribution(normal(), [transform])
    gradients = []
    for _ in range(2):
        y = transform(x)
        (gradient,) = torch.autograd.grad(flow.log_prob(y).sum() + y.sum(), x)
        gradients.append(gradient)
    assert torch.equal(*gradients)


def test_a_pair_made_without_gradients_is_not_used_with_them():
    transform = build()
    x = torch.randn(5, 2, dtype=torch.float64)
    with torch.no_grad():
        y = transform(x)
        assert transform.inv(y) is x
    assert transform.inv(y).requires_grad
    assert transform(x).requires_grad

    y = transform(x)
    with torch.no_grad():
        assert not transform(x).requires_grad


def test_inference_mode_leaves_no_pair_behind():
    transform = build()
    x = torch.randn(5, 2, dtype=torch.float64)
    with torch.inference_mode():
        y = transform(x)
        torch.testing.assert_close(transform.inv(y), x, rtol=1e-8, atol=1e-8)
    assert transform(x).requires_grad


def test_a_fresh_sample_is_scored_without_a_solve(monkeypatch):
    transform = build()
    flow = TransformedDistribution(normal(), [transform])
    y = flow.rsample((7,))
    with monkeypatch.context() as patch:
        patch.setattr(type(transform.layer), "invert", None)
        patch.setattr(type(transform.layer), "inverse", None)
        cached = flow.log_prob(y)
    torch.testing.assert_close(cached, flow.log_prob(y.clone()), rtol=1e-8, atol=1e-8)


@both_sides
def test_copies_and_pickles_with_a_live_pair_are_the_same_transform(explicit):
    transform = build(explicit)
    x = torch.randn(5, 2, dtype=torch.float64)
    y = transform(x)
    assert transform.inv.inv is transform
    for other in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert other._pair is None
        assert other.inv.inv is other
        torch.testing.assert_close(other(x), y, rtol=0, atol=0)
        torch.testing.assert_close(other.inv(y), x, rtol=1e-8, atol=1e-8)
        assert other.layer is not transform.layer


def test_another_cache_size_shares_the_parameters_and_not_the_pair():
    transform = build()
    assert transform.with_cache(1) is transform
    other = transform.with_cache(0)
    assert other.layer is transform.layer
    x = torch.randn(5, 2, dtype=torch.float64)
    assert other.inv(other(x)) is not x
    assert other.inv.inv is other
    assert transform.inv(transform(x)) is x


def test_clearing_the_cache_forgets_the_pair():
    transform = build()
    x = torch.randn(5, 2, dtype=torch.float64)
    y = transform(x)
    transform.clear_cache()
    assert transform.inv(y) is not x


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
