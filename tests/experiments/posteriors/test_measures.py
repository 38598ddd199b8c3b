"""Measures against closed forms."""

import math

import pytest
import torch

pytest.importorskip("pyro")
pytest.importorskip("sklearn")

from pyro.infer.autoguide import AutoMultivariateNormal
from scipy.stats import norm

from iresnet_flows.experiments.posteriors.measures import c2st, efficiency, elbo, weigh
from iresnet_flows.experiments.posteriors.targets import TaskTarget
from iresnet_flows.experiments.posteriors.tasks import TASKS


@pytest.fixture
def exact():
    """A target whose posterior is normal, and the guide that is that posterior."""
    x = torch.linspace(-1, 1, 10)
    target = TaskTarget(TASKS["gaussian_linear"], x, torch.zeros(1, 10))
    guide = AutoMultivariateNormal(target.model)
    guide()
    guide.loc.data = x / 2
    guide.scale = torch.full((10,), math.sqrt(0.05))
    guide.scale_tril = torch.eye(10)
    return target, guide, x


def test_the_posterior_itself_has_the_evidence_and_every_draw(exact):
    target, guide, x = exact
    draws, log_weights = weigh(target, guide, 1500)
    assert draws.shape == (1500, 10)
    evidence = torch.distributions.Normal(0.0, math.sqrt(0.2)).log_prob(x).sum()
    torch.testing.assert_close(log_weights, evidence.expand(1500), atol=1e-4, rtol=0)
    assert elbo(log_weights).value == pytest.approx(float(evidence), abs=1e-4)
    assert efficiency(log_weights).value == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(draws.mean(0), x / 2, atol=5 * math.sqrt(0.05 / 1500), rtol=0)


def test_efficiency_and_elbo_of_a_normal_that_is_too_wide():
    torch.manual_seed(3)
    scale = 1.5
    z = scale * torch.randn(200_000)
    normal = torch.distributions.Normal
    log_weights = normal(0.0, 1.0).log_prob(z) - normal(0.0, scale).log_prob(z)
    share, bound = efficiency(log_weights), elbo(log_weights)
    second = scale**2 / math.sqrt(2 * scale**2 - 1)
    assert abs(share.value - 1 / second) < 4 * share.standard_error
    assert 0 < share.standard_error < 5e-3
    divergence = 0.5 * (scale**2 - 1) - math.log(scale)
    assert abs(bound.value + divergence) < 4 * bound.standard_error


def test_c2st_of_the_same_law_and_of_a_shifted_one():
    torch.manual_seed(4)
    first, second = torch.randn(2, 2000, 3)
    same = c2st(first, second)
    assert abs(same.value - 0.5) < 0.035
    shift = torch.tensor([1.0, 0.0, 0.0])
    told = c2st(first + shift, second)
    assert told.value == pytest.approx(norm.cdf(0.5), abs=0.03)
    assert 0 < told.standard_error < 0.03


def test_c2st_uses_as_many_of_the_reference_as_there_are_draws():
    draws = torch.randn(200, 2)
    reference = torch.cat([torch.randn(200, 2), torch.full((5000, 2), 9.0)])
    assert c2st(draws, reference).value < 0.65


def test_c2st_of_a_missing_mode():
    torch.manual_seed(5)
    reference = torch.randn(2000, 1) + 20 * torch.randint(0, 2, (2000, 1))
    draws = torch.randn(2000, 1)
    assert c2st(draws, reference).value == pytest.approx(0.75, abs=0.03)
