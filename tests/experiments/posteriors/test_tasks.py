"""The likelihoods of the tasks are those of their simulators, and those of the papers."""

import math

import pytest
import torch

pytest.importorskip("pyro")

from iresnet_flows.experiments.posteriors.tasks import TASKS, Simulator


def grid(centre, half, count):
    """Points of a square, (count^2, 2), and the area of each."""
    line = torch.linspace(-half, half, count, dtype=torch.float64)
    points = torch.cartesian_prod(line + centre[0], line + centre[1])
    return points, (2 * half / (count - 1)) ** 2


def test_two_moons_is_a_density_of_x_but_for_its_wall():
    theta = torch.tensor([0.3, -0.5], dtype=torch.float64)
    moons = TASKS["two_moons"]
    centre = moons.shift(theta) + torch.tensor([0.25, 0.0])
    points, area = grid(centre, 0.2, 1001)
    mass = float(moons.log_likelihood(theta, points).exp().sum() * area)
    assert mass == pytest.approx(1 + 2 * moons.edge / (math.pi * moons.radius), abs=2e-4)


def test_two_moons_scores_its_simulations_as_often_as_they_come():
    torch.manual_seed(1)
    theta = torch.tensor([0.3, -0.5], dtype=torch.float64)
    moons = TASKS["two_moons"]
    points, area = grid(moons.shift(theta) + torch.tensor([0.25, 0.0]), 0.2, 801)
    density = moons.log_likelihood(theta, points).exp()
    drawn = moons.simulate(theta.float().expand(20_000, 2))
    found = moons.log_likelihood(theta, drawn.double()).exp()
    error = found.std() / math.sqrt(len(found))
    # The mean density at its own draws is the integral of its square.
    assert abs(found.mean() - density.square().sum() * area) < 4 * error + 0.01 * found.mean()


def test_gaussian_mixture():
    x, theta = torch.randn(7, 2), torch.randn(7, 2)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.tensor([0.5, 0.5])),
        torch.distributions.MultivariateNormal(
            theta.unsqueeze(1), torch.stack([torch.eye(2), 0.01 * torch.eye(2)])
        ),
    )
    found = TASKS["gaussian_mixture"].log_likelihood(theta, x)
    torch.testing.assert_close(found, mixture.log_prob(x))


def normal_of(theta):
    """The law of one point of SLCP, written out."""
    a, b = theta[..., 2].square(), theta[..., 3].square()
    cross = theta[..., 4].tanh() * a * b
    rows = torch.stack([a.square(), cross, cross, b.square()], -1)
    return torch.distributions.MultivariateNormal(theta[..., :2], rows.unflatten(-1, (2, 2)))


def test_slcp():
    theta = torch.rand(9, 5, dtype=torch.float64) * 4 - 2
    x = torch.randn(9, 8, dtype=torch.float64)
    points = x.unflatten(-1, (4, 2))
    expected = sum(normal_of(theta).log_prob(points[:, i]) for i in range(4))
    torch.testing.assert_close(TASKS["slcp"].log_likelihood(theta, x), expected)


def test_slcp_simulates_what_it_scores():
    torch.manual_seed(2)
    theta = torch.tensor([0.5, -1.0, 1.2, -0.8, 0.6])
    x = TASKS["slcp"].simulate(theta.expand(20_000, 5)).reshape(-1, 2)
    law = normal_of(theta)
    torch.testing.assert_close(x.mean(0), law.mean, atol=0.03, rtol=0)
    torch.testing.assert_close(x.T.cov(), law.covariance_matrix, atol=0.05, rtol=0.03)


def test_slcp_is_finite_where_its_covariance_vanishes():
    theta = torch.tensor([[0.0, 0.0, 0.0, 1.0, 40.0]], requires_grad=True)
    value = TASKS["slcp"].log_likelihood(theta, torch.ones(8))
    value.sum().backward()
    assert value.isfinite().all()
    assert theta.grad.isfinite().all()


@pytest.mark.parametrize("name", ["gaussian_linear", "gaussian_linear_uniform"])
def test_gaussian_linear(name):
    theta, x = torch.randn(5, 10), torch.randn(10)
    law = torch.distributions.MultivariateNormal(theta, 0.1 * torch.eye(10))
    torch.testing.assert_close(TASKS[name].log_likelihood(theta, x), law.log_prob(x))


def test_bernoulli_glm_is_that_of_its_spikes():
    glm = TASKS["bernoulli_glm"]
    theta = glm.prior.sample((4,))
    spikes = (torch.rand(100) < 0.3).float()
    spike = torch.distributions.Bernoulli(logits=theta @ glm.design.T)
    found = glm.log_likelihood(theta, glm.design.T @ spikes)
    torch.testing.assert_close(found, spike.log_prob(spikes).sum(-1))


def test_design_holds_the_delayed_stimulus():
    design = TASKS["bernoulli_glm"].design
    assert design.shape == (100, 10)
    assert (design[:, 0] == 1).all()
    for delay in range(1, 9):
        assert (design[:delay, delay + 1] == 0).all()
        torch.testing.assert_close(design[delay:, delay + 1], design[:-delay, 1])


@pytest.mark.parametrize("name", TASKS)
def test_shapes_are_those_of_the_batch(name):
    task = TASKS[name]
    x = torch.zeros({"two_moons": 2, "gaussian_mixture": 2, "slcp": 8}.get(name, 10))
    assert task.log_likelihood(task.prior.sample((3, 1)), x).shape == (3, 1)
    if isinstance(task, Simulator):
        assert task.simulate(task.prior.sample((0,))).shape == (0, len(x))
