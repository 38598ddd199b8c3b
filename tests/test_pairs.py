"""The cache of transforms: what it saves, and that it cannot be stale."""

from __future__ import annotations

import gc
import io
import weakref

import pytest
import torch
from torch.distributions import TransformedDistribution
from transform_cases import both_sides, build, normal, points

from iresnet_flows import ClaimedBranch, InvertibleResidualBlock, LipschitzMLP, PowerSeries
from iresnet_flows.distributions import LayerTransform


def test_a_pair_is_used_again_while_nothing_has_changed():
    transform = build()
    x = points()
    y = transform(x)
    assert transform.inv(y) is x
    assert transform(x) is y
    z = transform.inv(y + 1)
    assert transform(transform.inv(z)) is not None

    base = points()
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


def edit_by_zeros(transform, x, y):
    """Every value stays, but the graph has grown."""
    y += torch.zeros_like(y).requires_grad_()


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


def edited_data(transform, x, y):
    """As averages of weights are swapped in; no version counter sees it."""
    transform.layer.branch.weights[0].data.mul_(2)


def edited_data_of_x(transform, x, y):
    x.data.add_(1)


def another_parameter(transform, x, y):
    weights = transform.layer.branch.weights
    weights[0] = torch.nn.Parameter(weights[0].detach().clone())


def another_bound(transform, x, y):
    transform.layer.branch.lipschitz = 0.2


def another_estimator(transform, x, y):
    transform.layer.log_det = PowerSeries()


def another_private_attribute(transform, x, y):
    transform.layer.branch._note = "changed"


def another_mode(transform, x, y):
    transform.layer.eval()


def backward_of_the_log_det(transform, x, y):
    transform.log_abs_det_jacobian(x, y).sum().backward()


CHANGES = (
    parameter_step,
    optimizer_step,
    edit_of_x,
    edit_of_y,
    edit_by_zeros,
    edit_of_context,
    another_context,
    loading,
    backward,
    freezing,
    replaced_data,
    edited_data,
    edited_data_of_x,
    another_parameter,
    another_bound,
    another_estimator,
    another_private_attribute,
    another_mode,
    backward_of_the_log_det,
)


@both_sides
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_no_pair_outlives_a_change(change, explicit):
    transform = build(explicit, context=points(2))
    x = points()
    y = transform(x)
    transform.log_abs_det_jacobian(x, y)
    change(transform, x, y)
    fresh = transform.with_cache(0)
    again = transform.inv(y)
    assert again is not x
    torch.testing.assert_close(again, fresh.inv(y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(transform(x), fresh(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "change", [c for c in CHANGES if c is not another_estimator], ids=lambda f: f.__name__
)
def test_no_log_det_outlives_a_change(change):
    transform = build(context=points(2))
    x = points()
    y = transform(x)
    transform.log_abs_det_jacobian(x, y)
    change(transform, x, y)
    ladj = transform.log_abs_det_jacobian(x, y)
    fresh = transform.with_cache(0).log_abs_det_jacobian(x, y)
    torch.testing.assert_close(ladj, fresh, rtol=1e-9, atol=1e-9)
    assert ladj.requires_grad == fresh.requires_grad
    if ladj.requires_grad:
        parameters = list(transform.layer.parameters())
        for gradients in zip(
            torch.autograd.grad(ladj.sum(), parameters, materialize_grads=True),
            torch.autograd.grad(fresh.sum(), parameters, materialize_grads=True),
        ):
            torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


def test_an_edit_by_zeros_has_its_gradient():
    flow = TransformedDistribution(normal(), [build()])
    y, w = flow.rsample((5,)), points().zero_().requires_grad_()
    y += w
    flow.log_prob(y).sum().backward()

    leaf = y.detach().requires_grad_()
    flow.log_prob(leaf).sum().backward()
    torch.testing.assert_close(w.grad, leaf.grad)


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_no_pair_outlives_a_hook(register):
    module = torch.nn.Tanh()
    transform = LayerTransform(InvertibleResidualBlock(ClaimedBranch(module, 0.999)))
    x = points()
    before = transform(x)
    handle = getattr(module, register)(lambda _, given, *rest: torch.zeros_like(given[0]))
    assert torch.equal(transform(x), x)
    handle.remove()
    assert torch.equal(transform(x), before)


def test_a_second_backward_through_a_pair_has_a_graph_of_its_own():
    transform = build()
    x = points().requires_grad_()
    flow = TransformedDistribution(normal(), [transform])
    gradients = []
    for _ in range(2):
        y = transform(x)
        (gradient,) = torch.autograd.grad(flow.log_prob(y).sum() + y.sum(), x)
        gradients.append(gradient)
    assert torch.equal(*gradients)


def test_a_pair_made_without_gradients_is_not_used_with_them():
    transform = build()
    x = points()
    with torch.no_grad():
        y = transform(x)
        assert transform.inv(y) is x
    assert transform.inv(y).requires_grad
    assert transform(x).requires_grad

    y = transform(x)
    with torch.no_grad():
        assert not transform(x).requires_grad


def test_a_pair_of_inference_mode_is_used_in_that_mode_alone():
    transform, x = build(), points()
    with torch.inference_mode():
        y = transform(x)
        assert transform.inv(y) is x
    with torch.no_grad():
        assert not transform(x).is_inference()
    assert transform(x).requires_grad


def test_a_pair_of_autocast_is_used_in_that_mode_alone():
    transform, x = build(), points().float()
    transform.layer.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = transform(x)
        assert transform(x) is rough
    with torch.autocast("cpu", dtype=torch.float16):
        finer = transform(x)
    assert not torch.equal(finer, rough)
    torch.testing.assert_close(transform(x), transform.with_cache(0)(x))
    assert not torch.equal(transform(x), rough)


def test_a_fresh_sample_is_scored_without_a_solve(monkeypatch):
    transform = build()
    flow = TransformedDistribution(normal(), [transform])
    y = flow.rsample((7,))
    with monkeypatch.context() as patch:
        patch.setattr(type(transform.layer), "invert", None)
        patch.setattr(type(transform.layer), "inverse", None)
        cached = flow.log_prob(y)
    torch.testing.assert_close(cached, flow.log_prob(y.clone()), rtol=1e-8, atol=1e-8)


def test_another_cache_size_shares_the_parameters_and_not_the_pair():
    transform = build()
    assert transform.with_cache(1) is transform
    other = transform.with_cache(0)
    assert other.layer is transform.layer
    x = points()
    assert other.inv(other(x)) is not x
    assert other.inv.inv is other
    assert transform.inv(transform(x)) is x


def test_clearing_the_cache_forgets_the_pair():
    transform = build()
    x = points()
    y = transform(x)
    transform.clear_cache()
    assert transform.inv(y) is not x


def stochastic(explicit="forward", **kwargs):
    """A wide block, whose log-det is estimated with one probe."""
    block = InvertibleResidualBlock(LipschitzMLP(12, (64, 64)).double(), PowerSeries())
    return LayerTransform(block, explicit, **kwargs)


@both_sides
def test_an_estimated_log_det_is_drawn_once_for_a_pair(explicit):
    transform, x = stochastic(explicit), points(5, 12)
    y, ladj = transform.call_and_ladj(x)
    assert torch.equal(transform.log_abs_det_jacobian(x, y), ladj)
    assert torch.equal(transform.inv.log_abs_det_jacobian(y, x), -ladj)
    for result, expected in zip(transform.call_and_ladj(x), (y, ladj)):
        assert torch.equal(result, expected)
    for result, expected in zip(transform.inv.call_and_ladj(y), (x, -ladj)):
        assert torch.equal(result, expected)


@both_sides
def test_draws_are_independent_where_nothing_is_kept(explicit):
    transform, x = stochastic(explicit, cache_size=0), points(1, 12)
    y = transform(x)
    draws = torch.stack([transform.log_abs_det_jacobian(x, y) for _ in range(20)])
    assert draws.unique().numel() == 20

    transform = transform.with_cache(1)
    transform(x)
    first = transform.log_abs_det_jacobian(x, y)
    transform.clear_cache()
    assert not torch.equal(transform.log_abs_det_jacobian(x, y), first)


def test_a_frozen_block_does_not_take_the_draw_of_another_seed():
    transform, x = stochastic(), points(5, 12)
    y, outside = transform.call_and_ladj(x)
    for seed in (1, 2):
        with transform.layer.frozen(seed):
            inside = transform.log_abs_det_jacobian(x, y)
            assert torch.equal(inside, transform.layer(x)[1])
            assert not torch.equal(inside, outside)


@both_sides
def test_tensors_are_freed_without_a_garbage_collection(explicit):
    gc.collect()
    gc.disable()
    try:
        transform = build(explicit)
        flow = TransformedDistribution(normal(), [transform])
        y = flow.rsample((5,))
        flow.log_prob(y)
        sample, pair = weakref.ref(y), weakref.ref(transform._cache.pair)
        transform(points())
        del y
        assert sample() is None
        assert pair() is None

        latest, module = weakref.ref(transform(points())), weakref.ref(transform)
        del transform, flow
        assert latest() is None
        assert module() is None
    finally:
        gc.enable()


def test_a_sample_in_the_cache_can_be_saved():
    """Its hook must not make `torch.save` warn; warnings are errors here."""
    y = build()(points())
    assert y.requires_grad
    torch.save(y, io.BytesIO())


@both_sides
def test_values_that_torch_func_hides_are_not_kept(explicit):
    transform = build(explicit)
    flow = TransformedDistribution(normal(), [transform])
    x = points(3, 5, 2)
    expected = flow.log_prob(x.clone())
    torch.testing.assert_close(torch.func.vmap(flow.log_prob)(x), expected)
    torch.testing.assert_close(torch.func.vmap(torch.func.vmap(flow.log_prob))(x), expected)
    assert transform._cache.pair is None

    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(flow.log_prob(leaf).sum(), leaf)
    result = torch.func.grad(lambda x: flow.log_prob(x).sum())(x)
    torch.testing.assert_close(result, gradient)

    jacobian = torch.func.vmap(torch.func.jacrev(transform))(x[0])
    ladj = torch.linalg.slogdet(jacobian).logabsdet
    y = transform(x[0])
    torch.testing.assert_close(transform.log_abs_det_jacobian(x[0], y), ladj)


@both_sides
def test_an_inverse_is_that_of_the_present_context(explicit):
    transform, x = build(explicit, context=points(2)), points()
    held = transform.inv
    y = transform(x)
    transform.context = transform.context + 1
    assert transform.inv is not held
    assert transform.inv.inv is transform
    torch.testing.assert_close(transform.inv(transform(x).clone()), x)
    torch.testing.assert_close(held(y.clone()), x)


def test_a_cache_of_another_size_is_refused():
    with pytest.raises(ValueError, match="cache_size must be 0 or 1"):
        build(cache_size=2)
    with pytest.raises(ValueError, match="cache_size must be 0 or 1, got 2"):
        build().with_cache(2)


def test_weights_that_pyro_draws_are_drawn_for_each_score():
    nn = pytest.importorskip("pyro.nn")
    dist = pytest.importorskip("pyro.distributions")
    transform = build("inverse")
    branch = transform.layer.branch
    nn.module.to_pyro_module_(transform.layer)
    shape = branch.weights[0].shape
    prior = dist.Normal(torch.zeros(shape, dtype=torch.float64), 1.0).to_event(2)
    setattr(branch.weights, "0", nn.PyroSample(prior))

    class Flow(nn.PyroModule):
        def __init__(self):
            super().__init__()
            self.layer = transform.layer

        def forward(self, y):
            return TransformedDistribution(normal(), [transform]).log_prob(y).sum()

    flow, y = Flow(), points()
    with torch.no_grad():
        scores = [float(flow(y)) for _ in range(4)]
    assert len(set(scores)) == 4
