"""Residual blocks as normflows flows: `forward` is latent to data, `inverse` scores data."""

import copy
import pickle

import pytest
import torch

pytest.importorskip("normflows")

import normflows as nf
from cases import hostile

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.layers import ElementwiseAffine
from iresnet_flows.normflows import InvertibleResidual, LayerFlow

both_sides = pytest.mark.parametrize("explicit", ["inverse", "forward"])
both_modes = pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])


def make_block(features=2, context_features=None, atol=1e-13):
    branch = LipschitzMLP(features, (8, 6), context_features=context_features).double()
    return InvertibleResidualBlock(hostile(branch), solver=FixedPoint(atol=atol, rtol=atol))


def make_flow(explicit="inverse", features=2, context_features=None, p=None):
    parts = [
        InvertibleResidual(make_block(features, context_features), explicit),
        nf.flows.Permute(features, mode="swap"),
        LayerFlow(hostile(ElementwiseAffine(features).double())),
        InvertibleResidual(make_block(features, context_features), explicit),
    ]
    base = hostile(nf.distributions.DiagGaussian(features), 0.2)
    if context_features is None:
        return nf.NormalizingFlow(base, parts, p).double()
    return nf.ConditionalNormalizingFlow(base, parts, p).double()


def dense_log_prob(flow, x, **context):
    def to_latent(x):
        return flow.inverse(x, **context)

    jacobian = torch.autograd.functional.jacobian(
        lambda x: to_latent(x).sum(0), x, create_graph=True
    )
    ladj = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet
    return flow.q0.log_prob(to_latent(x)) + ladj


def points(count=5, features=2):
    return torch.randn(count, features, dtype=torch.float64)


class Target(torch.nn.Module):
    """A correlated, skewed density, up to its constant."""

    def log_prob(self, z, context=None):
        bend = z[:, 1] - 0.3 * z[:, 0].square()
        if context is not None:
            bend = bend - context.sum(-1)
        return -0.5 * (z[:, 0] - 1).square() - bend.square()


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
    flow, x = make_flow(explicit, features).train(training), points(features=features)
    log_prob = flow.log_prob(x)
    assert log_prob.shape == (5,)
    torch.testing.assert_close(log_prob, dense_log_prob(flow, x), rtol=0, atol=1e-9)


@both_sides
def test_log_prob_of_one_dimension_is_that_of_the_derivative(explicit):
    base = nf.distributions.DiagGaussian(1)
    flow = nf.NormalizingFlow(base, [InvertibleResidual(make_block(1), explicit)]).double()
    x = points(features=1)
    torch.testing.assert_close(flow.log_prob(x), dense_log_prob(flow, x), rtol=0, atol=1e-9)


@both_sides
def test_log_prob_and_its_terms_keep_float64(explicit):
    flow, x = make_flow(explicit), points()
    for part in flow.flows:
        if isinstance(part, LayerFlow):
            for side in (part.forward, part.inverse):
                assert {tensor.dtype for tensor in side(x)} == {torch.float64}
    assert flow.log_prob(x).dtype == flow.sample(3)[1].dtype == torch.float64


@both_sides
@both_modes
def test_gradients_of_a_weighted_loss_are_those_of_the_dense_truth(explicit, training):
    flow, x = make_flow(explicit).train(training), points().requires_grad_()
    weights = torch.tensor([0.0, 1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    wanted = [x, *flow.parameters()]
    gradients = torch.autograd.grad(weights @ flow.log_prob(x), wanted)
    truth = torch.autograd.grad(weights @ dense_log_prob(flow, x), wanted)
    for gradient, expected in zip(gradients, truth):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


@both_sides
@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["single", "double"]
)
def test_both_round_trips_return(explicit, dtype, atol):
    flow, x = make_flow(explicit), points().to(dtype)
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
    flow = make_flow(explicit)
    samples, log_prob = flow.sample(6)
    assert samples.shape == (6, 2)
    torch.testing.assert_close(log_prob, flow.log_prob(samples), rtol=0, atol=1e-9)


@both_sides
def test_forward_kld_is_minus_the_mean_log_prob_and_trains(explicit):
    flow, x = make_flow(explicit), points(64).square()
    # normflows sums this loss in float32, whatever it is given.
    torch.testing.assert_close(
        flow.forward_kld(x).double(), -dense_log_prob(flow, x).mean(), rtol=0, atol=1e-5
    )
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-2)
    losses = []
    for _ in range(15):
        loss = flow.forward_kld(x)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1


OBJECTIVES = {
    "reverse_kld": lambda flow: flow.reverse_kld(32),
    "reverse_kld, no score": lambda flow: flow.reverse_kld(32, score_fn=False),
    "reverse_alpha_div": lambda flow: flow.reverse_alpha_div(32, alpha=0.5),
    "reverse_alpha_div, dreg": lambda flow: flow.reverse_alpha_div(32, alpha=1, dreg=True),
}


@both_sides
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_every_reverse_objective_reaches_every_parameter(explicit, objective):
    flow = make_flow(explicit, p=Target())
    torch.manual_seed(1)
    loss = objective(flow)
    assert loss.isfinite()
    loss.backward()
    assert all(p.requires_grad for p in flow.parameters())
    missing = [n for n, p in flow.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


@both_sides
def test_the_pathwise_gradient_of_reverse_kld_is_that_of_the_dense_truth(explicit):
    flow = make_flow(explicit, p=Target())
    torch.manual_seed(1)
    flow.reverse_kld(8, score_fn=False).backward()
    gradients = [p.grad for p in flow.parameters()]

    torch.manual_seed(1)
    z = flow.sample(8)[0]
    frozen = copy.deepcopy(flow).requires_grad_(requires_grad=False)
    leaf = z.detach().requires_grad_()
    pull = torch.autograd.grad(
        (dense_log_prob(frozen, leaf) - flow.p.log_prob(leaf)).mean(), leaf
    )[0]
    truth = torch.autograd.grad(z, list(flow.parameters()), pull)
    for gradient, expected in zip(gradients, truth):
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_reverse_kld_trains_towards_the_target():
    flow = make_flow("forward", p=Target())
    optimiser = torch.optim.Adam(flow.parameters(), lr=2e-2)

    def loss():
        torch.manual_seed(1)
        return flow.reverse_kld(128)

    before = loss().item()
    for _ in range(15):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    assert loss().item() < before - 0.1


@both_sides
def test_context_goes_by_keyword_to_every_layer(explicit):
    flow, x = make_flow(explicit, context_features=3), points()
    context = points(features=3)
    log_prob = flow.log_prob(x, context)
    truth = dense_log_prob(flow, x, context=context)
    torch.testing.assert_close(log_prob, truth, rtol=0, atol=1e-9)
    assert not torch.allclose(log_prob, flow.log_prob(x, context.flip(0)))

    samples, scores = flow.sample(5, context=context)
    torch.testing.assert_close(scores, flow.log_prob(samples, context), rtol=0, atol=1e-9)
    kld = flow.forward_kld(x, context=context)
    torch.testing.assert_close(kld.double(), -truth.mean(), rtol=0, atol=1e-5)
    flow.p = Target()
    flow.reverse_kld(5, context=context, score_fn=False).backward()
    assert all(p.grad is not None for p in flow.parameters())


@pytest.mark.parametrize("copied", ["save and load", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_density(copied, tmp_path):
    flow, x = make_flow(), points()
    if copied == "deepcopy":
        other = copy.deepcopy(flow)
    elif copied == "pickle":
        other = pickle.loads(pickle.dumps(flow))
    else:
        flow.save(tmp_path / "flow.pt")
        torch.manual_seed(9)
        other = make_flow()
        assert not torch.allclose(other.log_prob(x), flow.log_prob(x))
        other.load(tmp_path / "flow.pt")
    assert torch.equal(other.log_prob(x), flow.log_prob(x))


def test_their_updater_of_lipschitz_constants_has_nothing_to_do():
    flow, x = make_flow(), points()
    before = flow.log_prob(x)
    nf.utils.update_lipschitz(flow, 5)
    assert torch.equal(flow.log_prob(x), before)


@both_sides
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_runs_without_gradients(explicit, mode):
    flow, x = make_flow(explicit), points()
    expected = flow.log_prob(x).detach()
    with mode():
        torch.testing.assert_close(flow.log_prob(x), expected)
        assert flow.sample(3)[0].shape == (3, 2)


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        InvertibleResidual(make_block(), "backward")


def test_a_missing_context_is_refused():
    with pytest.raises(ValueError, match="context"):
        make_flow(context_features=3).log_prob(points())


@pytest.mark.parametrize("shape", [(5, 3), (4, 5, 2), (2,)])
def test_data_of_the_wrong_shape_is_refused(shape):
    part = InvertibleResidual(make_block())
    with pytest.raises(ValueError, match="shape"):
        part(torch.zeros(shape, dtype=torch.float64))
