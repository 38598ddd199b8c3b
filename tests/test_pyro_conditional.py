"""Conditional residual blocks in Pyro: contexts, plates and amortised inference."""

import pytest
import torch

pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
from cases import hostile
from pyro.infer import SVI, Trace_ELBO
from pyro_cases import (
    both_sides,
    dense_log_prob,
    make_conditional,
    make_transform,
    normal,
    points,
)

from iresnet_flows.pyro import conditional_invertible_residual

pytestmark = pytest.mark.usefixtures("empty_param_store")


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


@pytest.mark.parametrize("event_dim", [0, 1])
def test_a_conditional_transform_says_its_domain_before_it_is_conditioned(event_dim):
    transform = conditional_invertible_residual(1, 3, [8], event_dim=event_dim)
    conditioned = transform.condition(points(3))
    assert transform.bijective
    for side in ("domain", "codomain"):
        assert getattr(transform, side).event_dim == event_dim
        assert getattr(conditioned, side).event_dim == event_dim


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


@both_sides
def test_contexts_of_several_dimensions_meet_samples(explicit):
    """As in two plates: contexts of the inner rows, samples over the outer ones."""
    transform, context = make_conditional(explicit), points(4, 1, 3)
    conditioned, x = transform.condition(context), points(6, 1, 5, 2)
    y = conditioned(x)
    assert y.shape == (6, 4, 5, 2)
    ladj = conditioned.log_abs_det_jacobian(x, y)
    assert ladj.shape == (6, 4, 5)
    for i in range(4):
        alone = transform.condition(context[i, 0])
        torch.testing.assert_close(y[:, i], alone(x[:, 0]), rtol=0, atol=1e-9)
        expected = alone.log_abs_det_jacobian(x[:, 0], y[:, i])
        torch.testing.assert_close(ladj[:, i], expected, rtol=0, atol=1e-9)


def test_constant_and_conditional_parts_stand_in_one_conditional_composition():
    parts = [make_conditional(), make_transform("inverse"), make_conditional()]
    composed = dist.conditional.ConditionalComposeTransformModule(parts, cache_size=1)
    assert len(list(composed.parameters())) == sum(len(list(p.parameters())) for p in parts)
    context = points(7, 3)
    flow = dist.ConditionalTransformedDistribution(normal(), [composed]).condition(context)
    y = flow.sample((7,))
    first, middle, last = parts[0].condition(context), parts[1], parts[2].condition(context)
    chained = dist.transforms.ComposeTransform([first, middle, last])
    truth = dense_log_prob(chained, y)
    torch.testing.assert_close(flow.log_prob(y), truth, rtol=0, atol=1e-9)
    x = composed.inv.condition(context)(y)
    torch.testing.assert_close(chained(x), y, rtol=0, atol=1e-9)


def test_contexts_that_fit_nothing_are_refused():
    transform = make_conditional()
    with pytest.raises(ValueError, match=r"\(5,\) of x .* \(7,\) of the context"):
        transform.condition(points(7, 3))(points(5, 2))
    with pytest.raises(ValueError, match=r"context.*\(7, 2\)"):
        transform.condition(points(7, 2))(points(7, 2))
    with pytest.raises(TypeError, match="context must be a tensor, got list"):
        transform.condition([0.0, 1.0, 2.0])


def test_a_plate_draws_noise_of_its_own_for_each_context():
    transform, same = make_conditional(), torch.zeros(50, 3, dtype=torch.float64)
    flow = dist.ConditionalTransformedDistribution(normal(), [transform]).condition(same)
    with pyro.plate("rows", 50):
        y = pyro.sample("y", flow)
    assert y.shape == (50, 2)
    assert y.unique(dim=0).shape == y.shape


def test_particles_stand_to_the_left_of_the_rows_of_a_plate():
    transform, context = make_conditional(), points(7, 3)
    flow = dist.ConditionalTransformedDistribution(normal(), [transform])

    def guide():
        with pyro.plate("particles", 4, dim=-2), pyro.plate("rows", 7, dim=-1):
            pyro.sample("y", flow.condition(context))

    trace = pyro.poutine.trace(guide).get_trace()
    trace.compute_log_prob()
    y, log_prob = trace.nodes["y"]["value"], trace.nodes["y"]["log_prob"]
    assert y.shape == (4, 7, 2)
    assert log_prob.shape == (4, 7)
    for i in range(7):
        truth = dense_log_prob(transform.condition(context[i]), y[:, i].detach())
        torch.testing.assert_close(log_prob[:, i], truth, rtol=0, atol=1e-9)


def test_the_amortised_guide_of_a_plate_finds_the_posterior():
    """Against the exact Gaussian posterior of each row, also of rows that it has never seen."""
    mix, noise = torch.tensor([[1.0, 0.5], [0.0, 1.0]]), 0.5
    prior = dist.Normal(torch.zeros(2), 1.0).to_event(1)

    def observe(rows):
        return dist.Normal(prior.sample((rows,)) @ mix.T, noise).sample()

    blocks = dist.conditional.ConditionalComposeTransformModule(
        [conditional_invertible_residual(2, 2, [16, 16]) for _ in range(2)]
    )
    posterior = dist.ConditionalTransformedDistribution(prior, [blocks])

    def model(x):
        with pyro.plate("rows", len(x), subsample_size=100) as rows:
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z @ mix.T, noise).to_event(1), obs=x[rows])

    def guide(x):
        pyro.module("blocks", blocks)
        with pyro.plate("rows", len(x), subsample_size=100) as rows:
            pyro.sample("z", posterior.condition(x[rows]))

    x = observe(500)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(120):
        svi.step(x)

    unseen = observe(300)
    covariance = (torch.eye(2) + mix.T @ mix / noise**2).inverse()
    exact = dist.MultivariateNormal(unseen @ mix @ covariance / noise**2, covariance)
    with torch.no_grad():
        found = posterior.condition(unseen)
        z = found.sample((50, 300))
        divergence = found.log_prob(z) - exact.log_prob(z)
    assert divergence.mean() < 0.2  # nats; the prior is some 8 away
    torch.testing.assert_close(z.mean(0), exact.mean, rtol=0, atol=0.6)
    within = (z - z.mean(0)).reshape(-1, 2)
    torch.testing.assert_close(within.T.cov(), covariance, rtol=0, atol=0.05)
