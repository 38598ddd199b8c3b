"""Residual blocks as nflows transforms: data to noise is `forward`, log-dets are of that side."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("nflows")

from cases import hostile
from hosts import (
    Counted,
    assert_has_gradients_of,
    assert_replaces_its_block,
    both_modes,
    dense_logabsdet,
    make_block,
    points,
)
from nflows.distributions import normal
from nflows.flows.base import Flow
from nflows.transforms.base import (
    CompositeTransform,
    InputOutsideDomain,
    InverseNotAvailable,
    InverseTransform,
)
from nflows.transforms.coupling import AffineCouplingTransform
from nflows.transforms.permutations import ReversePermutation

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.layers import ElementwiseAffine, Logit
from iresnet_flows.nflows import InvertibleResidualTransform, LayerTransform, StandardNormal

both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])


def make_flow(explicit="forward", features=2, context_features=None, embedding_net=None):
    parts = [
        InvertibleResidualTransform(make_block(features, context_features), explicit),
        ReversePermutation(features),
        LayerTransform(hostile(ElementwiseAffine(features).double())),
        InvertibleResidualTransform(make_block(features, context_features), explicit),
    ]
    return Flow(CompositeTransform(parts), StandardNormal([features]), embedding_net).double()


def dense_log_prob(flow, x, context=None):
    def to_noise(x):
        return flow.transform_to_noise(x, context)

    base = torch.distributions.Normal(0.0, 1.0).log_prob(to_noise(x)).sum(-1)
    return base + dense_logabsdet(to_noise, x)


@both_sides
def test_the_explicit_side_is_the_block_and_the_other_its_inverse(explicit):
    block, x = make_block(), points()
    transform = InvertibleResidualTransform(block, explicit)
    sides = {"forward": transform.forward, "inverse": transform.inverse}
    explicit_side = sides.pop(explicit)
    (solved_side,) = sides.values()

    assert transform.block is block
    for result, expected in zip(explicit_side(x), block(x)):
        assert torch.equal(result, expected)
    for result, expected in zip(solved_side(x), block.inverse(x)):
        assert torch.equal(result, expected)


@both_sides
def test_only_the_solved_side_needs_the_solver(explicit):
    block, x = make_block(), points()
    block.solver = FixedPoint(atol=0.0, rtol=0.0, max_steps=1)
    flow = Flow(InvertibleResidualTransform(block, explicit), StandardNormal([2])).double()
    explicit_call, solved_call = (lambda: flow.log_prob(x)), (lambda: flow.sample(3))
    if explicit == "inverse":
        explicit_call, solved_call = solved_call, explicit_call

    explicit_call()
    with pytest.raises(InverseNotConverged, match="max_steps"):
        solved_call()


@both_sides
@both_modes
@pytest.mark.parametrize("features", [1, 2, 3])
def test_log_prob_is_that_of_the_dense_jacobian(explicit, training, features):
    flow, x = make_flow(explicit, features).train(training), points(5, features)
    log_prob = flow.log_prob(x)
    assert log_prob.shape == (5,)
    assert log_prob.dtype == torch.float64
    torch.testing.assert_close(log_prob, dense_log_prob(flow, x), rtol=0, atol=1e-9)


@both_sides
@both_modes
def test_gradients_of_a_weighted_loss_are_those_of_the_dense_truth(explicit, training):
    flow, x = make_flow(explicit).train(training), points().requires_grad_()
    wanted = [x, *flow.parameters()]
    assert_has_gradients_of(flow.log_prob(x), dense_log_prob(flow, x), wanted)


@both_sides
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"]
)
def test_both_round_trips_return_and_cancel_their_log_dets(explicit, dtype, atol):
    transform, x = make_flow(explicit)._transform, points().to(dtype)
    for layer in transform.modules():
        if isinstance(layer, InvertibleResidualBlock):
            layer.solver = FixedPoint()
    transform.to(dtype)
    for there, back in (
        (transform.forward, transform.inverse),
        (transform.inverse, transform.forward),
    ):
        y, logabsdet = there(x)
        restored, minus_logabsdet = back(y)
        assert restored.dtype == logabsdet.dtype == dtype
        torch.testing.assert_close(restored, x, rtol=0, atol=atol)
        torch.testing.assert_close(minus_logabsdet, -logabsdet, rtol=0, atol=20 * atol)


def test_inverse_transform_of_one_side_is_the_other_side():
    block, x = make_block(), points()
    swapped = InverseTransform(InvertibleResidualTransform(block, "forward"))
    other = InvertibleResidualTransform(block, "inverse")
    for ours, theirs in ((other.forward, swapped.forward), (other.inverse, swapped.inverse)):
        for result, expected in zip(ours(x), theirs(x)):
            assert torch.equal(result, expected)


@both_sides
def test_sample_and_log_prob_agrees_with_log_prob(explicit):
    flow = make_flow(explicit)
    samples, log_prob = flow.sample_and_log_prob(6)
    assert samples.shape == (6, 2)
    torch.testing.assert_close(log_prob, flow.log_prob(samples), rtol=0, atol=1e-9)


@both_sides
def test_context_is_aligned_with_rows(explicit):
    flow = make_flow(explicit, context_features=3)
    x, context = points(), points(5, 3)
    log_prob = flow.log_prob(x, context)
    each = [flow.log_prob(x[i : i + 1], context[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(log_prob, torch.cat(each), rtol=0, atol=1e-10)
    torch.testing.assert_close(log_prob, dense_log_prob(flow, x, context), rtol=0, atol=1e-9)
    assert not torch.allclose(log_prob, flow.log_prob(x, context.flip(0)))


@both_sides
def test_samples_are_repeated_for_each_context_through_the_embedding_net(explicit):
    flow = make_flow(explicit, context_features=3, embedding_net=nn.Linear(7, 3))
    context = points(4, 7)
    assert flow.sample(6, context).shape == (4, 6, 2)

    samples, log_prob = flow.sample_and_log_prob(6, context)
    assert samples.shape == (4, 6, 2)
    assert log_prob.shape == (4, 6)
    again = flow.log_prob(samples.flatten(0, 1), context.repeat_interleave(6, 0))
    torch.testing.assert_close(log_prob.flatten(), again, rtol=0, atol=1e-9)

    log_prob.sum().backward()
    assert flow._embedding_net.weight.grad.abs().min() > 0


@both_sides
def test_samples_carry_the_gradient_of_the_parameters(explicit):
    flow = make_flow(explicit)
    weights = points()
    parameters = list(flow.parameters())

    def loss():
        torch.manual_seed(3)
        return (weights * flow.sample(5).sin()).sum()

    directions = [torch.randn_like(p) for p in parameters]
    gradients = torch.autograd.grad(loss(), parameters)
    slope = sum((g * d).sum() for g, d in zip(gradients, directions))

    def moved(step):
        other = copy.deepcopy(parameters)
        with torch.no_grad():
            for p, d in zip(parameters, directions):
                p.add_(step * d)
            value = loss()
            for p, old in zip(parameters, other):
                p.copy_(old)
        return value

    difference = (moved(1e-5) - moved(-1e-5)) / 2e-5
    torch.testing.assert_close(slope, difference, rtol=1e-5, atol=1e-6)


@both_sides
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_without_gradients(explicit, mode):
    flow, x = make_flow(explicit), points()
    expected = flow.log_prob(x).detach()
    with mode():
        torch.testing.assert_close(flow.log_prob(x), expected)
        assert flow.sample(3).shape == (3, 2)


@both_sides
def test_the_value_alone_costs_no_log_det(explicit):
    counted = Counted()
    transform, x = InvertibleResidualTransform(make_block(log_det=counted), explicit), points()
    y, restored = transform.transform(x), transform.invert(x)
    assert counted.calls == []
    torch.testing.assert_close(y, transform(x)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(restored, transform.inverse(x)[0], rtol=0, atol=1e-12)
    assert len(counted.calls) == 2


@both_sides
@pytest.mark.parametrize("count", [0, 1])
def test_small_batches_keep_their_shape(explicit, count):
    transform = make_flow(explicit)._transform
    for side in (transform, transform.inverse):
        outputs, logabsdet = side(points(count, 2))
        assert outputs.shape == (count, 2)
        assert logabsdet.shape == (count,)


def test_a_block_that_is_replaced_is_replaced():
    assert_replaces_its_block(InvertibleResidualTransform(make_block()), make_block())


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        InvertibleResidualTransform(make_block(), "backward")


def test_a_branch_in_place_of_its_block_is_refused():
    with pytest.raises(TypeError, match=r"InvertibleResidualBlock\(branch\).*LipschitzMLP"):
        InvertibleResidualTransform(LipschitzMLP(2))


def test_a_missing_context_is_refused():
    with pytest.raises(ValueError, match="context"):
        make_flow(context_features=3).log_prob(points())


def test_a_context_that_no_one_asked_for_is_refused():
    with pytest.raises(ValueError, match="context_features"):
        make_flow().log_prob(points(), points(5, 3))


@both_sides
@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 2), (2,)])
def test_data_of_the_wrong_shape_are_refused_as_by_nflows_own_transforms(explicit, shape):
    mask = torch.tensor([1.0, -1.0])
    theirs = AffineCouplingTransform(mask, nn.Linear)
    ours = InvertibleResidualTransform(make_block(), explicit)
    for side in (theirs, theirs.inverse, ours, ours.inverse):
        with pytest.raises(ValueError, match=r"shape|features|2D"):
            side(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_inverse_at_no_finite_point_is_refused_with_its_row(value):
    y = points()
    y[3, 1] = value
    with pytest.raises(InverseNotConverged, match=r"1 of 5 samples.*sample 3"):
        InvertibleResidualTransform(make_block()).inverse(y)


def test_an_inverse_that_was_not_reached_is_available_all_the_same():
    """`InverseNotAvailable` would tell its catcher that there is none, and hide the remedy."""
    block = make_block()
    block.solver = FixedPoint(atol=1e-13, rtol=1e-13, max_steps=2)
    with pytest.raises(InverseNotConverged, match="max_steps") as caught:
        InvertibleResidualTransform(block).inverse(points())
    assert not isinstance(caught.value, InverseNotAvailable)


@both_sides
def test_values_outside_of_the_domain_of_a_layer_are_refused_as_by_nflows(explicit):
    transform, x = LayerTransform(Logit(), explicit), torch.tensor([[2.0, 0.5]])
    sides = [transform, transform.transform]
    if explicit == "inverse":
        sides = [transform.inverse, transform.invert]
    for side in sides:
        with pytest.raises(InputOutsideDomain, match=r"\[0, 1\].* got 0.5 to 2"):
            side(x)
        with pytest.raises(ValueError, match="scale it"):
            side(x)


def test_their_own_base_is_refused_with_both_dtypes():
    flow = Flow(InvertibleResidualTransform(make_block()), normal.StandardNormal([2]))
    with pytest.raises(TypeError, match=r"torch.float32.*torch.float64"):
        flow.double().sample(3)
