"""Targets are the models they say, and files that do not fit are named."""

import pytest

pytest.importorskip("pyro")
np = pytest.importorskip("numpy")

import torch
from pyro import poutine

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.posteriors.targets import EightSchools, load_target


def files(folder, name, x, draws):
    where = folder / "sbibm" / name
    where.mkdir(parents=True)
    np.save(where / "observation_1.npy", np.atleast_2d(x).astype(np.float32))
    np.save(where / "reference_1.npy", draws.astype(np.float32))


def test_files_become_a_target(tmp_path):
    draws = np.random.default_rng(0).normal(size=(20, 2))
    files(tmp_path, "gaussian_mixture", np.array([1.0, 2.0]), draws)
    target = load_target("gaussian_mixture", tmp_path)
    np.testing.assert_allclose(target.reference(), draws, rtol=1e-6)
    trace = poutine.trace(target.model).get_trace(power=0.5)
    theta = trace.nodes["theta"]["value"]
    expected = target.task.prior.log_prob(theta) + 0.5 * target.log_likelihood(theta)
    torch.testing.assert_close(trace.log_prob_sum(), expected)


def test_missing_files_are_named_with_their_folder(tmp_path):
    with pytest.raises(DataError, match=r"no observation_1.npy, reference_1.npy in .*sbibm.slcp"):
        load_target("slcp", tmp_path)


def test_draws_of_another_dimension_are_refused(tmp_path):
    files(tmp_path, "slcp", np.zeros(8), np.zeros((20, 4)))
    with pytest.raises(DataError, match="4 columns, and slcp has 5 parameters"):
        load_target("slcp", tmp_path)


def test_data_of_another_dimension_are_refused(tmp_path):
    files(tmp_path, "slcp", np.zeros(7), np.zeros((20, 5)))
    with pytest.raises(DataError, match=r"observation_1.npy: 7 columns, and slcp observes 8"):
        load_target("slcp", tmp_path)


def schools_log_joint(mu, log_tau, theta):
    """Written out in mu, log tau and theta."""
    normal = torch.distributions.Normal
    tau = log_tau.exp()
    prior = torch.distributions.HalfCauchy(5.0).log_prob(tau) + log_tau
    prior = prior + normal(0.0, 5.0).log_prob(mu) + normal(mu, tau).log_prob(theta).sum()
    return prior + normal(theta, EightSchools.errors).log_prob(EightSchools.effects).sum()


def test_eight_schools_is_the_density_of_its_parameters():
    values = {"mu": torch.tensor(3.0), "log_tau": torch.tensor(0.7), "theta": torch.randn(8)}
    schools = EightSchools()
    trace = poutine.trace(poutine.condition(schools.model, data=values)).get_trace()
    expected = schools_log_joint(*values.values())
    torch.testing.assert_close(trace.log_prob_sum(), expected)
    collected = schools.collect(values)
    torch.testing.assert_close(collected[:2], torch.tensor([3.0, 0.7]))
    torch.testing.assert_close(collected[2:], values["theta"])


def marginal_moments():
    """The posterior mean of mu and of log tau, by quadrature: theta integrates out by hand."""
    mu = torch.linspace(-25, 35, 601, dtype=torch.float64)[:, None, None]
    log_tau = torch.linspace(-9, 5, 701, dtype=torch.float64)[None, :, None]
    spread = (log_tau.exp().square() + EightSchools.errors.double().square()).sqrt()
    normal = torch.distributions.Normal
    log_p = normal(mu, spread).log_prob(EightSchools.effects.double()).sum(-1)
    log_p = log_p + normal(0.0, 5.0).log_prob(mu[..., 0])
    scale = torch.distributions.HalfCauchy(5.0)
    log_p = log_p + scale.log_prob(log_tau[..., 0].exp()) + log_tau[..., 0]
    weights = log_p.flatten().softmax(0).reshape(log_p.shape)
    return float((weights * mu[..., 0]).sum()), float((weights * log_tau[..., 0]).sum())


def test_reference_of_eight_schools_is_its_posterior(tmp_path):
    before = torch.get_rng_state()
    kept = tmp_path / "draws.npy"
    draws = EightSchools(kept, draws=300, warmup=150).reference()
    assert torch.equal(torch.get_rng_state(), before)
    mu, log_tau = marginal_moments()
    # At worst one draw in three is independent.
    errors = draws.std(0) / 10
    assert abs(draws[:, 0].mean() - mu) < 4 * errors[0]
    assert abs(draws[:, 1].mean() - log_tau) < 4 * errors[1]
    assert torch.equal(EightSchools(kept).reference(), draws)
