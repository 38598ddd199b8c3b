"""Residual blocks as normflows flows: `forward` is latent to data, `inverse` scores data."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("normflows")

import normflows as nf
from hosts import (
    assert_has_gradients_of,
    assert_replaces_its_block,
    both_modes,
    dense_log_prob,
    make_block,
    make_normflows,
    points,
)

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.normflows import InvertibleResidual, LayerFlow

both_sides = pytest.mark.parametrize("explicit", ["inverse", "forward"])


@both_sides
def test_the_explicit_side_is_the_block_and_the_other_its_inverse(explicit):
    block, x = make_block(), points()
    flow = InvertibleResidual(block, explicit)
    sides = {"forward": flow.forward, "inverse": flow.inverse}
    explicit_side = sides.pop(explicit)
    (solved_side,) = sides.values()

    assert flow.block is block
    for result, expected in zip(explicit_side(x), block(x)):
        assert torch.equal(result, expected)
    for result, expected in zip(solved_side(x), block.inverse(x)):
        assert torch.equal(result, expected)


def test_by_default_log_prob_is_explicit():
    assert InvertibleResidual(make_block()).explicit == "inverse"


@both_sides
def test_only_the_solved_side_needs_the_solver(explicit):
    block, x = make_block(), points()
    block.solver = FixedPoint(atol=0.0, rtol=0.0, max_steps=1)
    base = nf.distributions.DiagGaussian(2)
    flow = nf.NormalizingFlow(base, [InvertibleResidual(block, explicit)]).double()
    explicit_call, solved_call = (lambda: flow.log_prob(x)), (lambda: flow.sample(3))
    if explicit == "forward":
        explicit_call, solved_call = solved_call, explicit_call

    explicit_call()
    with pytest.raises(InverseNotConverged, match="max_steps"):
        solved_call()


@both_sides
@both_modes
@pytest.mark.parametrize("features", [2, 3])
def test_log_prob_is_that_of_the_dense_jacobian(explicit, training, features):
    flow, x = make_normflows(explicit, features).train(training), points(5, features)
    log_prob = flow.log_prob(x)
    assert log_prob.shape == (5,)
    torch.testing.assert_close(log_prob, dense_log_prob(flow, x), rtol=0, atol=1e-9)


@both_sides
def test_log_prob_of_one_dimension_is_that_of_the_derivative(explicit):
    base = nf.distributions.DiagGaussian(1)
    flow = nf.NormalizingFlow(base, [InvertibleResidual(make_block(1), explicit)]).double()
    x = points(5, 1)
    torch.testing.assert_close(flow.log_prob(x), dense_log_prob(flow, x), rtol=0, atol=1e-9)


@both_sides
def test_log_prob_and_its_terms_keep_float64(explicit):
    flow, x = make_normflows(explicit), points()
    for part in flow.flows:
        if isinstance(part, LayerFlow):
            for side in (part.forward, part.inverse):
                assert {tensor.dtype for tensor in side(x)} == {torch.float64}
    assert flow.log_prob(x).dtype == flow.sample(3)[1].dtype == torch.float64


@both_sides
@both_modes
def test_gradients_of_a_weighted_loss_are_those_of_the_dense_truth(explicit, training):
    flow, x = make_normflows(explicit).train(training), points().requires_grad_()
    wanted = [x, *flow.parameters()]
    assert_has_gradients_of(flow.log_prob(x), dense_log_prob(flow, x), wanted)


@both_sides
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"]
)
def test_both_round_trips_return(explicit, dtype, atol):
    flow, x = make_normflows(explicit), points().to(dtype)
    for layer in flow.modules():
        if isinstance(layer, InvertibleResidualBlock):
            layer.solver = FixedPoint()
    flow.to(dtype)
    for there, back in ((flow.forward, flow.inverse), (flow.inverse, flow.forward)):
        restored = back(there(x))
        assert restored.dtype == dtype
        torch.testing.assert_close(restored, x, rtol=0, atol=atol)


@both_sides
def test_samples_come_with_their_log_prob(explicit):
    flow = make_normflows(explicit)
    samples, log_prob = flow.sample(6)
    assert samples.shape == (6, 2)
    torch.testing.assert_close(log_prob, flow.log_prob(samples), rtol=0, atol=1e-9)


@both_sides
def test_context_goes_by_keyword_to_every_layer(explicit):
    flow, x = make_normflows(explicit, context_features=3), points()
    context = points(5, 3)
    log_prob = flow.log_prob(x, context)
    truth = dense_log_prob(flow, x, context=context)
    torch.testing.assert_close(log_prob, truth, rtol=0, atol=1e-9)
    assert not torch.allclose(log_prob, flow.log_prob(x, context.flip(0)))

    samples, scores = flow.sample(5, context=context)
    torch.testing.assert_close(scores, flow.log_prob(samples, context), rtol=0, atol=1e-9)
    kld = flow.forward_kld(x, context=context)
    torch.testing.assert_close(kld.double(), -truth.mean(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("copied", ["save and load", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_density(copied, tmp_path):
    flow, x = make_normflows(), points()
    if copied == "deepcopy":
        other = copy.deepcopy(flow)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(flow))
    else:
        flow.save(tmp_path / "flow.pt")
        torch.manual_seed(9)
        other = make_normflows()
        assert not torch.allclose(other.log_prob(x), flow.log_prob(x))
        other.load(tmp_path / "flow.pt")
    assert torch.equal(other.log_prob(x), flow.log_prob(x))


def test_their_updater_of_lipschitz_constants_has_nothing_to_do():
    flow, x = make_normflows(), points()
    before = flow.log_prob(x)
    nf.utils.update_lipschitz(flow, 5)
    assert torch.equal(flow.log_prob(x), before)


@both_sides
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_without_gradients(explicit, mode):
    flow, x = make_normflows(explicit), points()
    expected = flow.log_prob(x).detach()
    with mode():
        torch.testing.assert_close(flow.log_prob(x), expected)
        assert flow.sample(3)[0].shape == (3, 2)


def test_a_block_that_is_replaced_is_replaced():
    assert_replaces_its_block(InvertibleResidual(make_block()), make_block())


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        InvertibleResidual(make_block(), "backward")


def test_a_branch_in_place_of_its_block_is_refused():
    with pytest.raises(TypeError, match=r"InvertibleResidualBlock\(branch\).*LipschitzMLP"):
        InvertibleResidual(LipschitzMLP(2))


@both_sides
@pytest.mark.parametrize("count", [0, 1])
def test_small_batches_keep_their_shape(explicit, count):
    flow = make_normflows(explicit)
    assert flow.log_prob(points(count, 2)).shape == (count,)
    for side in (flow.flows[0], flow.flows[0].inverse):
        z, log_det = side(points(count, 2))
        assert z.shape == (count, 2)
        assert log_det.shape == (count,)


def test_a_context_that_no_one_asked_for_is_refused():
    flow = nf.ConditionalNormalizingFlow(make_normflows().q0, make_normflows().flows)
    with pytest.raises(ValueError, match="context_features"):
        flow.log_prob(points(), context=points(5, 3))


def test_a_missing_context_is_refused():
    with pytest.raises(ValueError, match="context"):
        make_normflows(context_features=3).log_prob(points())


@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 2), (2,)])
def test_data_of_the_wrong_shape_is_refused(shape):
    part = InvertibleResidual(make_block())
    with pytest.raises(ValueError, match="shape"):
        part(torch.zeros(shape, dtype=torch.float64))
