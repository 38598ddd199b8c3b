"""Residual blocks in Pyro distributions: base to sample is `__call__`, in guides and densities."""

import pytest
import torch

pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
from cases import hostile
from hosts import assert_replaces_its_block
from pyro.distributions.transforms import ComposeTransformModule, iterated
from pyro_cases import (
    TIGHT,
    both_sides,
    dense_log_prob,
    make_conditional,
    make_transform,
    normal,
    points,
    total_gradient,
)
from torch.utils.checkpoint import checkpoint

from iresnet_flows import (
    FixedPoint,
    InvertibleResidualBlock,
    LipschitzMLP,
    PowerSeries,
    RussianRoulette,
)
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.layers.contract import Layer
from iresnet_flows.pyro import (
    ConditionalInvertibleResidual,
    InvertibleResidual,
    conditional_invertible_residual,
    invertible_residual,
)

both_caches = pytest.mark.parametrize("cache_size", [0, 1], ids=["no cache", "cache"])


@both_sides
def test_the_explicit_side_is_the_block_and_the_other_its_inverse(explicit):
    transform, x = make_transform(explicit, cache_size=0), points()
    explicit_side, solved_side = transform, transform.inv
    if explicit == "inverse":
        explicit_side, solved_side = solved_side, explicit_side
    block = transform.block
    assert torch.equal(explicit_side(x), block(x)[0])
    assert torch.equal(solved_side(x), block.inverse(x)[0])
    for side, expected in ((explicit_side, block(x)), (solved_side, block.inverse(x))):
        ladj = side.log_abs_det_jacobian(x, side(x))
        torch.testing.assert_close(ladj, expected[1], rtol=0, atol=1e-10)


@both_sides
def test_only_the_solved_side_needs_the_solver(explicit):
    transform = make_transform(explicit)
    transform.block.solver = FixedPoint(atol=0.0, rtol=0.0, max_steps=1)
    flow, y = dist.TransformedDistribution(normal(), [transform]), points()
    explicit_call, solved_call = flow.rsample, lambda: flow.log_prob(y)
    if explicit == "inverse":
        explicit_call, solved_call = solved_call, explicit_call

    explicit_call()
    with pytest.raises(InverseNotConverged, match="max_steps"):
        solved_call()


@both_sides
@both_caches
@pytest.mark.parametrize("features", [1, 2, 3])
def test_log_prob_is_that_of_the_dense_jacobian(explicit, cache_size, features):
    transform, y = make_transform(explicit, features, cache_size), points(5, features)
    log_prob = dist.TransformedDistribution(normal(features), [transform]).log_prob(y)
    torch.testing.assert_close(log_prob, dense_log_prob(transform, y), rtol=0, atol=1e-9)


@both_sides
def test_log_prob_of_a_sample_is_that_of_the_dense_jacobian(explicit):
    transform = make_transform(explicit)
    flow = dist.TransformedDistribution(normal(), [transform])
    y = flow.rsample((5,))
    torch.testing.assert_close(
        flow.log_prob(y), dense_log_prob(transform, y.detach()), rtol=0, atol=1e-9
    )


@both_sides
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_gradients_of_a_weighted_loss_are_those_of_the_dense_truth(explicit, training):
    transform, y = make_transform(explicit).train(training), points().requires_grad_()
    weights = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    flow = dist.TransformedDistribution(normal(), [transform])
    wanted = [y, *transform.parameters()]
    gradients = torch.autograd.grad(weights @ flow.log_prob(y), wanted)
    truth = torch.autograd.grad(weights @ dense_log_prob(transform, y), wanted)
    for gradient, expected in zip(gradients, truth):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


@both_sides
@both_caches
def test_the_gradient_of_a_scored_sample_is_that_of_the_dense_truth(explicit, cache_size):
    transform = make_transform(explicit, cache_size=cache_size)
    weights, parameters = points(5), list(transform.parameters())
    flow = dist.TransformedDistribution(normal(), [transform])
    torch.manual_seed(1)
    y = flow.rsample((5,))
    # Shifting the sample and its score alike, the last bias does not matter.
    gradients = torch.autograd.grad(weights @ flow.log_prob(y), parameters, materialize_grads=True)
    torch.manual_seed(1)
    y = transform.with_cache(0)(normal().rsample((5,)))
    truth = total_gradient(lambda y: weights @ dense_log_prob(transform, y), y, parameters)
    for gradient, expected in zip(gradients, truth):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


@both_sides
@pytest.mark.parametrize("shape", [(), (5,), (4, 1, 3)])
def test_samples_and_scores_have_the_shapes_of_pyro(explicit, shape):
    flow = dist.TransformedDistribution(normal(3), [make_transform(explicit, 3)])
    assert flow.event_shape == (3,)
    y = flow.rsample(shape)
    assert y.shape == (*shape, 3)
    log_prob = flow.log_prob(y)
    assert log_prob.shape == shape
    flat = flow.log_prob(y.detach().reshape(-1, 3))
    torch.testing.assert_close(log_prob.flatten(), flat, rtol=0, atol=1e-9)


@both_sides
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["single", "double"])
def test_both_round_trips_return(explicit, dtype):
    transform = make_transform(explicit, cache_size=0).to(dtype)
    transform.block.solver = FixedPoint()
    x = points().to(dtype)
    atol = 1e-5 if dtype == torch.float32 else 1e-10
    for there, back in ((transform, transform.inv), (transform.inv, transform)):
        restored = back(there(x))
        assert restored.dtype == dtype
        torch.testing.assert_close(restored, x, rtol=0, atol=atol)


def test_the_inverse_of_one_side_is_the_other_side():
    transform, x = make_transform("forward"), points()
    other = InvertibleResidual(transform.block, "inverse")
    assert transform.inv.inv is transform
    torch.testing.assert_close(other(x), transform.inv(x))
    flow = dist.TransformedDistribution(normal(), [transform.inv])
    twin = dist.TransformedDistribution(normal(), [other])
    torch.testing.assert_close(flow.log_prob(x), twin.log_prob(x))


@both_sides
@pytest.mark.parametrize("turned", [False, True], ids=["", "inv"])
def test_a_composition_sees_every_parameter(explicit, turned):
    originals = [make_transform(explicit), make_transform(explicit)]
    parts = [part.inv for part in originals] if turned else originals
    composed = ComposeTransformModule(parts)
    assert list(composed.state_dict()) == list(ComposeTransformModule(originals).state_dict())
    flow = dist.TransformedDistribution(normal(), [composed])
    flow.log_prob(points()).sum().backward()
    parameters = [p for part in originals for p in part.parameters()]
    assert len(parameters) == 2 * 6
    assert {id(p) for p in composed.parameters()} == {id(p) for p in parameters}
    assert [p for p in parameters if p.grad is None] == []


def test_the_inverse_of_a_composition_is_pyros_and_no_module():
    """Why stacks are turned around by `explicit`."""
    composed = iterated(2, invertible_residual, 2)
    assert not isinstance(composed.inv, torch.nn.Module)
    assert list(ComposeTransformModule([composed.inv]).parameters()) == []


def test_iterated_builds_blocks_of_their_own():
    transform = iterated(4, invertible_residual, 3)
    assert len(transform.parts) == 4
    assert len({id(p) for p in transform.parameters()}) == 4 * 6
    assert transform.parts[0].block.branch.hidden_features == (30, 30)
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0).to_event(1), [transform])
    assert flow.log_prob(flow.rsample((5, 7))).shape == (5, 7)


def test_helpers_hand_their_arguments_on():
    transform = invertible_residual(
        2, [7], "inverse", lipschitz=0.5, activation="elu", solver=TIGHT, memory="low"
    )
    assert transform.explicit == "inverse"
    assert transform.block.solver is TIGHT
    assert transform.block.memory == "low"
    assert transform.block.branch.hidden_features == (7,)
    assert transform.block.branch.lipschitz == 0.5


def test_maximum_likelihood_through_the_inverse_side_trains():
    x = torch.randn(128, 2)
    x = torch.stack([x[:, 0], 0.3 * x[:, 1] + 0.5 * x[:, 0].square()], -1)
    transform = iterated(2, invertible_residual, 2, [16, 16], explicit="inverse")
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    flow = dist.TransformedDistribution(base, [transform])
    optimiser = torch.optim.Adam(transform.parameters(), lr=2e-2)
    losses = []
    for _ in range(20):
        loss = -flow.log_prob(x).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


@both_sides
def test_scoring_twice_with_a_backward_each_time_works(explicit):
    transform, y = make_transform(explicit), points()
    flow = dist.TransformedDistribution(normal(), [transform])
    gradients = []
    for _ in range(2):
        transform.zero_grad()
        flow.log_prob(y).sum().backward()
        gradients.append([p.grad.clone() for p in transform.parameters()])
    for first, second in zip(*gradients):
        assert torch.equal(first, second)


@both_sides
def test_a_sample_can_be_scored_again_after_its_backward(explicit):
    transform = make_transform(explicit)
    flow = dist.TransformedDistribution(normal(), [transform])
    y = flow.sample((5,))
    flow.log_prob(y).sum().backward()
    flow.log_prob(y).sum().backward()


@both_sides
def test_a_step_of_the_optimiser_is_seen_at_once(explicit):
    transform, y = make_transform(explicit), points()
    flow = dist.TransformedDistribution(normal(), [transform])
    before = flow.log_prob(y)
    before.sum().backward()
    torch.optim.SGD(transform.parameters(), lr=0.1).step()
    after = flow.log_prob(y)
    assert not torch.allclose(after, before)
    torch.testing.assert_close(after, dense_log_prob(transform, y), rtol=0, atol=1e-9)


@both_sides
def test_scores_after_no_grad_still_have_a_gradient(explicit):
    transform, y = make_transform(explicit), points()
    flow = dist.TransformedDistribution(normal(), [transform])
    with torch.no_grad():
        flow.log_prob(y)
    gradients = torch.autograd.grad(flow.log_prob(y).sum(), list(transform.parameters()))
    truth = torch.autograd.grad(dense_log_prob(transform, y).sum(), list(transform.parameters()))
    for gradient, expected in zip(gradients, truth):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


def test_a_fresh_sample_is_scored_without_a_solve():
    transform = make_transform("forward")
    transform.block.solver = FixedPoint(atol=0.0, rtol=0.0, max_steps=1)
    flow = dist.TransformedDistribution(normal(), [transform])
    assert flow.log_prob(flow.rsample((5,))).isfinite().all()


@both_sides
@pytest.mark.parametrize("log_det", [PowerSeries(), RussianRoulette()], ids=repr)
@pytest.mark.parametrize("size", [0, 1])
def test_scores_of_one_sample_are_one_draw_while_the_cache_has_it(explicit, log_det, size):
    composed = iterated(2, invertible_residual, 12, [64, 64], explicit, log_det=log_det)
    parts = [part.with_cache(size) for part in hostile(composed, 0.1).parts]
    zero = torch.zeros(12)
    flow = dist.TransformedDistribution(dist.Normal(zero, 1.0).to_event(1), parts)
    y = flow.rsample((5,))
    first, second = flow.log_prob(y), flow.log_prob(y)
    assert torch.equal(first, second) == (size == 1)
    assert not torch.equal(flow.log_prob(y.detach()), first)


def test_sampling_and_scoring_in_one_pass_agree_with_two():
    transform, x = make_transform(), points()
    y, ladj = transform.call_and_ladj(x)
    log_prob = normal().log_prob(x) - ladj
    flow = dist.TransformedDistribution(normal(), [transform])
    assert torch.equal(flow.log_prob(y), log_prob)
    torch.testing.assert_close(log_prob, dense_log_prob(transform, y.detach()))
    back, minus = transform.inv.call_and_ladj(y)
    assert back is x
    assert torch.equal(minus, -ladj)


def test_zukos_distribution_and_pyros_bridge_to_it_take_our_transforms():
    zuko = pytest.importorskip("zuko")
    from pyro.contrib.zuko import ZukoToPyro

    transform = make_transform()
    flow = zuko.distributions.NormalizingFlow(transform.inv, normal())
    with pyro.plate("rows", 5):
        y = pyro.sample("y", ZukoToPyro(flow))
    assert y.shape == (5, 2)
    torch.testing.assert_close(flow.log_prob(y.clone()), dense_log_prob(transform, y.detach()))


def test_clearing_the_cache_of_a_whole_flow_is_harmless():
    composed = iterated(2, invertible_residual, 2)
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [composed])
    y = flow.rsample((5,))
    expected = flow.log_prob(y)
    composed.clear_cache()
    flow.clear_cache()
    composed.inv.clear_cache()
    torch.testing.assert_close(flow.log_prob(y), expected)
    composed.parts[0].double().float()  # whatever happens to the parameters
    torch.testing.assert_close(flow.log_prob(y), expected)


@both_sides
def test_a_stack_with_a_cache_of_its_own_scores_the_same(explicit):
    composed = hostile(iterated(2, invertible_residual, 2, explicit=explicit).double())
    y = points()
    flows = [
        dist.TransformedDistribution(normal(), [composed.with_cache(size)]) for size in (0, 1)
    ]
    plain, cached = (flow.log_prob(y) for flow in flows)
    torch.testing.assert_close(plain, cached)
    with torch.no_grad():
        for parameter in composed.parameters():
            parameter.add_(0.1)
    changed = [flow.log_prob(y) for flow in flows]
    torch.testing.assert_close(*changed)
    assert not torch.allclose(changed[0], plain)


def test_another_cache_size_shares_the_parameters():
    transform = make_transform()
    other = transform.with_cache(0)
    assert other is not transform
    assert transform.with_cache(1) is transform
    assert list(map(id, other.parameters())) == list(map(id, transform.parameters()))
    x = points()
    assert torch.equal(other(x), transform(x))


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        invertible_residual(2, explicit="backward")
    with pytest.raises(ValueError, match="'backward'"):
        conditional_invertible_residual(2, 3, explicit="backward")


def test_a_dimension_below_one_is_refused():
    with pytest.raises(ValueError, match=r"input_dim.*0"):
        invertible_residual(0)


def test_a_transform_of_numbers_has_one_feature():
    with pytest.raises(ValueError, match="event_dim=0 is for input_dim=1, got input_dim=2"):
        invertible_residual(2, event_dim=0)
    with pytest.raises(ValueError, match="event_dim=0 is for input_dim=1, got input_dim=2"):
        conditional_invertible_residual(2, 3, event_dim=0)


@pytest.mark.parametrize("make", [make_transform, make_conditional])
def test_a_block_that_is_replaced_is_replaced(make):
    assert_replaces_its_block(make(), make().block)


def test_a_pair_of_another_block_is_not_found():
    transform, x = make_transform(), points()
    transform(x)
    transform.block = block = make_transform().block
    assert torch.equal(transform(x), block.transform(x))


def test_a_layer_in_the_wrong_class_is_refused_at_once():
    conditional, plain = make_conditional().block, make_transform().block
    with pytest.raises(ValueError, match="asks for a context: use ConditionalInvertible"):
        InvertibleResidual(conditional)
    with pytest.raises(ValueError, match="takes no context"):
        ConditionalInvertibleResidual(plain)
    for kind in (InvertibleResidual, ConditionalInvertibleResidual):
        with pytest.raises(
            TypeError, match=r"InvertibleResidualBlock\(branch\).*got LipschitzMLP"
        ):
            kind(plain.branch)
        with pytest.raises(ValueError, match="event_dim"):
            kind(plain if kind is InvertibleResidual else conditional, event_dim=-1)


def test_rows_of_the_wrong_width_are_refused():
    with pytest.raises(ValueError, match="3"):
        make_transform()(points(5, 3))


def test_layers_become_pyro_modules_and_stay_abstract():
    transform, x = make_transform(), points()
    expected = transform(x)
    pyro.nn.module.to_pyro_module_(transform)
    assert isinstance(transform.layer.branch, pyro.nn.PyroModule)
    torch.testing.assert_close(transform(x), expected)

    block = pyro.nn.PyroModule[InvertibleResidualBlock](LipschitzMLP(2))
    assert block.invert(torch.randn(5, 2)).shape == (5, 2)
    for kind in (Layer, pyro.nn.PyroModule[Layer]):
        with pytest.raises(TypeError, match=r"abstract.*forward.*inverse"):
            kind()


@both_sides
def test_helpers_make_transforms_of_real_numbers(explicit):
    transform = invertible_residual(1, [8], explicit, event_dim=0).double()
    y = points(5)
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(()).double(), 1.0), [transform])
    assert flow.log_prob(y).shape == (5,)
    torch.testing.assert_close(flow.icdf(flow.cdf(y)), y, rtol=1e-6, atol=1e-6)

    conditional = conditional_invertible_residual(1, 3, [8], explicit, event_dim=0).double()
    given = conditional.condition(points(5, 3))
    assert given.log_abs_det_jacobian(y, given(y)).shape == (5,)


@both_sides
def test_a_density_without_a_cache_can_be_checkpointed(explicit):
    transform = make_transform(explicit)
    flow = dist.TransformedDistribution(normal(), [transform.with_cache(0)])
    y = points().requires_grad_()
    log_prob = checkpoint(flow.log_prob, y, use_reentrant=False)
    (gradient,) = torch.autograd.grad(log_prob.sum(), y)
    (expected,) = torch.autograd.grad(flow.log_prob(y).sum(), y)
    torch.testing.assert_close(gradient, expected)
