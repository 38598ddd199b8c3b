"""Residual blocks as Pyro transforms: base to sample is `__call__`, in guides and densities."""

import copy
import io
import math
import pickle
from functools import partial

import pytest
import torch

pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
from cases import hostile
from pyro.distributions.transforms import ComposeTransformModule, iterated
from pyro.infer import MCMC, NUTS, SVI, RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoNormalizingFlow
from pyro.infer.reparam import NeuTraReparam

from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import InverseNotConverged
from iresnet_flows.pyro import (
    InvertibleResidual,
    conditional_invertible_residual,
    invertible_residual,
)

both_sides = pytest.mark.parametrize("explicit", ["forward", "inverse"])
both_caches = pytest.mark.parametrize("cache_size", [0, 1], ids=["no cache", "cache"])
TIGHT = FixedPoint(atol=1e-13, rtol=1e-13)


@pytest.fixture(autouse=True)
def _empty_param_store():
    pyro.clear_param_store()
    yield
    pyro.clear_param_store()


def make_transform(explicit="forward", features=2, cache_size=1):
    block = InvertibleResidualBlock(hostile(LipschitzMLP(features, (8, 6)).double()), None, TIGHT)
    return InvertibleResidual(block, explicit, cache_size=cache_size)


def make_conditional(explicit="forward", features=2, context=3):
    transform = conditional_invertible_residual(features, context, [8, 6], explicit, solver=TIGHT)
    return hostile(transform.double())


def normal(features=2):
    zero = torch.zeros(features, dtype=torch.float64)
    return dist.Normal(zero, torch.ones_like(zero)).to_event(1)


def points(*shape):
    return torch.randn(*(shape or (5, 2)), dtype=torch.float64)


def dense_log_prob(transform, y):
    """The base density and the determinant of the dense Jacobian; y is (B, d)."""
    transform = transform.with_cache(0)
    jacobian = torch.autograd.functional.jacobian(
        lambda y: transform.inv(y).sum(0), y, create_graph=True
    )
    ladj = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet
    return normal(y.shape[-1]).log_prob(transform.inv(y)) + ladj


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
    weights = points(5)
    flow = dist.TransformedDistribution(normal(), [transform])
    torch.manual_seed(1)
    y = flow.rsample((5,))
    parameters = list(transform.parameters())
    # Shifting the sample and its score alike, the last bias does not matter.
    gradients = torch.autograd.grad(weights @ flow.log_prob(y), parameters, materialize_grads=True)
    torch.manual_seed(1)
    y = transform.with_cache(0)(normal().rsample((5,)))
    # The same path, in two legs: through the sample, and at the sample.
    leaf = y.detach().requires_grad_()
    scored = weights @ dense_log_prob(transform, leaf)
    pull, *direct = torch.autograd.grad(scored, [leaf, *parameters])
    through = torch.autograd.grad(y, parameters, pull)
    for gradient, a, b in zip(gradients, direct, through):
        torch.testing.assert_close(gradient, a + b, rtol=1e-7, atol=1e-8)


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


def test_one_dimension_has_a_sign_so_that_quantiles_exist():
    transform = make_transform("forward", 1)
    assert transform.sign == 1
    x = torch.linspace(-3, 3, 50, dtype=torch.float64).unsqueeze(-1)
    assert (transform(x).diff(dim=0) > 0).all()


@both_sides
def test_a_composition_sees_every_parameter(explicit):
    parts = [make_transform(explicit), make_transform(explicit)]
    composed = ComposeTransformModule(parts)
    assert len(list(composed.parameters())) == 2 * len(list(parts[0].parameters())) > 0
    flow = dist.TransformedDistribution(normal(), [composed])
    flow.log_prob(points()).sum().backward()
    assert [n for n, p in composed.named_parameters() if p.grad is None] == []


def test_iterated_builds_blocks_of_their_own():
    transform = iterated(4, invertible_residual, 3)
    assert len(transform.parts) == 4
    assert len({id(p) for p in transform.parameters()}) == 4 * 6
    assert transform.parts[0].block.branch.hidden_features == (30, 30)
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(3), 1.0).to_event(1), [transform])
    assert flow.log_prob(flow.rsample((5, 7))).shape == (5, 7)


def test_helpers_hand_their_arguments_on():
    transform = invertible_residual(
        2, [7], "inverse", lipschitz=0.5, activation="elu", solver=TIGHT
    )
    assert transform.explicit == "inverse"
    assert transform.block.solver is TIGHT
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


def banana():
    x = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(0.5 * x.square(), 0.3))
    pyro.sample("seen", dist.Normal(x, 0.5), obs=torch.tensor(0.7))


def make_guide():
    return AutoNormalizingFlow(banana, partial(iterated, 4, invertible_residual))


def fit(guide, elbo, steps):
    guide()
    svi = SVI(banana, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    return [svi.step() for _ in range(steps)]


def test_an_automatic_guide_trains_and_its_posterior_differentiates():
    guide = make_guide()
    elbo = Trace_ELBO(num_particles=32, vectorize_particles=True)
    losses = fit(guide, elbo, 40)
    assert sum(losses[-5:]) < sum(losses[:5]) - 0.5
    assert len(list(guide.transform.parameters())) == 4 * 6

    posterior = guide.get_posterior()
    x = torch.randn(5, 2, requires_grad=True)
    for _ in range(2):
        gradients = torch.autograd.grad(
            posterior.log_prob(x).sum(), [x, *guide.transform.parameters()]
        )
        assert all(g.isfinite().all() for g in gradients)
        assert gradients[0].abs().sum() > 0


ELBOS = {
    "particles": lambda: Trace_ELBO(num_particles=3),
    "vectorised particles": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True),
    "Renyi": lambda: RenyiELBO(alpha=0.5, num_particles=3, vectorize_particles=True),
}


@pytest.mark.parametrize("elbo", ELBOS.values(), ids=ELBOS)
def test_a_guide_runs_under_every_bound(elbo):
    losses = fit(make_guide(), elbo(), 3)
    assert all(math.isfinite(loss) for loss in losses)


def test_a_guide_of_one_latent_variable_runs():
    def model():
        pyro.sample("x", dist.Normal(1.0, 2.0))

    guide = AutoNormalizingFlow(model, partial(iterated, 2, invertible_residual))
    guide()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    assert all(math.isfinite(svi.step()) for _ in range(3))


def test_a_guide_straightens_a_posterior_for_hmc():
    guide = make_guide()
    fit(guide, Trace_ELBO(), 3)
    guide.requires_grad_(requires_grad=False)
    neutra = NeuTraReparam(guide)
    kernel = NUTS(neutra.reparam(banana), max_tree_depth=2)
    mcmc = MCMC(kernel, num_samples=3, warmup_steps=2, disable_progbar=True)
    mcmc.run()
    ((_, shared),) = mcmc.get_samples().items()
    latents = neutra.transform_sample(shared)
    assert latents["x"].shape == latents["y"].shape == (3,)


def test_a_guide_samples_without_solving():
    guide = make_guide()
    guide()
    for part in guide.transform.parts:
        part.block.solver = FixedPoint(atol=0.0, rtol=0.0, max_steps=1)
    assert math.isfinite(Trace_ELBO().differentiable_loss(banana, guide).item())


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


def test_another_cache_size_shares_the_parameters():
    transform = make_transform()
    other = transform.with_cache(0)
    assert other is not transform
    assert transform.with_cache(1) is transform
    assert list(map(id, other.parameters())) == list(map(id, transform.parameters()))
    x = points()
    assert torch.equal(other(x), transform(x))


@both_sides
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))], ids=["deepcopy", "pickle"]
)
def test_copies_are_whole_and_apart_with_a_live_cache(explicit, copied):
    transform, x = make_transform(explicit), points().requires_grad_()
    y = transform(x)
    assert transform.inv(y) is x
    other = copied(transform)
    fresh = points()
    assert torch.equal(other(fresh), transform(fresh))
    assert torch.equal(other.inv(fresh), transform.inv(fresh))
    hostile(other)
    assert not torch.allclose(other(fresh), transform(fresh))


def test_a_whole_composition_can_be_saved_while_its_caches_live(tmp_path):
    composed = iterated(2, invertible_residual, 2, [8])
    flow = dist.TransformedDistribution(dist.Normal(torch.zeros(2), 1.0).to_event(1), [composed])
    y = flow.rsample((5,))
    flow.log_prob(y)
    buffer = io.BytesIO()
    torch.save(composed, buffer)
    buffer.seek(0)
    other = torch.load(buffer, weights_only=False)
    assert torch.equal(other(y.detach()), composed(y.detach()))


@both_sides
def test_the_param_store_alone_restores_the_density(explicit, tmp_path):
    y = torch.randn(5, 2)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def make():
        return iterated(2, invertible_residual, 2, [8, 8], explicit=explicit)

    saved = hostile(make())
    pyro.module("flow", saved)
    expected = dist.TransformedDistribution(base, [saved]).log_prob(y)
    pyro.get_param_store().save(tmp_path / "params.pt")
    pyro.clear_param_store()

    fresh = make()
    flow = dist.TransformedDistribution(base, [fresh])
    assert not torch.allclose(flow.log_prob(y), expected)
    pyro.get_param_store().load(tmp_path / "params.pt")
    pyro.module("flow", fresh, update_module_params=True)
    torch.testing.assert_close(flow.log_prob(y), expected, rtol=0, atol=1e-6)


def test_a_state_dict_restores_the_density():
    y, saved, fresh = points(), make_transform(), make_transform()
    fresh.load_state_dict(saved.state_dict())
    assert torch.equal(fresh.inv(y), saved.inv(y))


@both_sides
def test_a_context_broadcasts_over_samples(explicit):
    transform, context = make_conditional(explicit), points(7, 3)
    flow = dist.ConditionalTransformedDistribution(normal(), [transform]).condition(context)
    assert flow.sample((7,)).shape == (7, 2)
    y = flow.sample((5, 7))
    assert y.shape == (5, 7, 2)
    log_prob = flow.log_prob(y)
    assert log_prob.shape == (5, 7)
    for i in range(7):
        alone = dist.TransformedDistribution(normal(), [transform.condition(context[i])])
        torch.testing.assert_close(log_prob[:, i], alone.log_prob(y[:, i]), rtol=0, atol=1e-9)


@both_sides
def test_the_explicit_side_of_a_conditioned_transform_is_the_block(explicit):
    transform, x, context = make_conditional(explicit), points(7, 2), points(7, 3)
    conditioned = transform.condition(context)
    explicit_side, solved_side = conditioned, conditioned.inv
    if explicit == "inverse":
        explicit_side, solved_side = solved_side, explicit_side
    assert torch.equal(explicit_side(x), transform.block.transform(x, context))
    assert torch.equal(solved_side(x), transform.block.invert(x, context))


@both_sides
def test_the_conditional_density_is_that_of_the_dense_jacobian(explicit):
    transform, y = make_conditional(explicit), points(7, 2)
    context = points(7, 3).requires_grad_()
    conditioned = transform.condition(context)
    flow = dist.TransformedDistribution(normal(), [conditioned])
    weights = points(7)
    log_prob, truth = flow.log_prob(y), dense_log_prob(conditioned, y)
    torch.testing.assert_close(log_prob, truth, rtol=0, atol=1e-9)
    wanted = [context, *transform.parameters()]
    gradients = torch.autograd.grad(weights @ log_prob, wanted)
    for gradient, expected in zip(gradients, torch.autograd.grad(weights @ truth, wanted)):
        torch.testing.assert_close(gradient, expected, rtol=1e-7, atol=1e-8)


def test_a_conditioned_transform_reads_the_present_parameters():
    transform = make_conditional("inverse")
    conditioned, y = transform.condition(points(3)), points()
    before = conditioned.inv(y)
    hostile(transform)
    assert not torch.allclose(conditioned.inv(y), before)


def test_conditional_transforms_compose_and_invert():
    first, second = make_conditional(), make_conditional()
    context, x = points(7, 3), points(7, 2)
    flow = dist.ConditionalTransformedDistribution(normal(), [first, second]).condition(context)
    y = second.condition(context)(first.condition(context)(x))
    inverse = first.inv.condition(context)(second.inv.condition(context)(y.detach()))
    torch.testing.assert_close(inverse, x, rtol=0, atol=1e-9)
    assert flow.log_prob(y).shape == (7,)


def test_a_conditional_flow_stands_in_a_plate():
    transform = conditional_invertible_residual(2, 3, [8], explicit="inverse")
    context, seen = torch.randn(7, 3), torch.randn(7, 2)
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def model():
        pyro.module("flow", transform)
        with pyro.plate("rows", 7):
            flow = dist.ConditionalTransformedDistribution(base, [transform])
            pyro.sample("y", flow.condition(context), obs=seen)

    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 2e-2}), Trace_ELBO())
    losses = [svi.step() for _ in range(10)]
    assert losses[-1] < losses[0]
    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["y"]["log_prob"].shape == (7,)


def test_a_plate_draws_from_a_conditional_flow():
    transform = conditional_invertible_residual(1, 3, [8])
    context = torch.randn(7, 3)
    base = dist.Normal(torch.zeros(7, 1), 1.0).to_event(1)
    flow = dist.ConditionalTransformedDistribution(base, [transform]).condition(context)
    with pyro.plate("rows", 7):
        assert pyro.sample("y", flow).shape == (7, 1)


def test_an_unknown_side_is_refused():
    with pytest.raises(ValueError, match="'backward'"):
        invertible_residual(2, explicit="backward")
    with pytest.raises(ValueError, match="'backward'"):
        conditional_invertible_residual(2, 3, explicit="backward")


def test_a_dimension_below_one_is_refused():
    with pytest.raises(ValueError, match=r"input_dim.*0"):
        invertible_residual(0)


def test_a_block_with_a_context_asks_for_it():
    block = make_conditional().block
    with pytest.raises(ValueError, match="context"):
        InvertibleResidual(block)(points())


def test_rows_of_the_wrong_width_are_refused():
    with pytest.raises(ValueError, match="3"):
        make_transform()(points(5, 3))
