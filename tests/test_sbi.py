"""The i-ResNet as sbi's density estimator, on a linear simulator whose posterior is known."""

import copy
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

pytest.importorskip("sbi")

from cases import hostile
from sbi.diagnostics.lc2st import LC2ST_NF
from sbi.inference import NLE, NPE, MCMCPosterior, likelihood_estimator_based_potential
from sbi.utils import BoxUniform

from iresnet_flows import Exact, FixedPoint, InvertibleResidualBlock
from iresnet_flows.sbi import build_iresnet

# Tests train for a few epochs only, which sbi warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Maximum number of epochs:UserWarning")

MIXING = torch.tensor([[1.0, 0.5], [-0.3, 1.0], [0.8, 0.2]])
NOISE = 0.4
PRIOR = MultivariateNormal(torch.zeros(2), torch.eye(2))
OBSERVED = torch.tensor([[0.9, -0.4, 0.7]])

build_small = partial(build_iresnet, num_transforms=2, hidden_features=16, encoder_features=32)


def simulate(theta):
    mean = theta @ MIXING.T
    return mean + NOISE * torch.randn_like(mean)


def true_posterior(x):
    covariance = torch.linalg.inv(torch.eye(2) + MIXING.T @ MIXING / NOISE**2)
    return MultivariateNormal(x @ MIXING @ covariance / NOISE**2, covariance)


def simulations(count, features=2, conditions=3):
    """Parameters and data, each with a scale of its own."""
    theta = 1 + 3 * torch.randn(count, features)
    return theta, 5 * theta[:, :1] - 2 * torch.randn(count, conditions)


def make_estimator(features=2, conditions=3, **kwargs):
    """An estimator as training leaves it, in double precision, and what it is evaluated at."""
    theta, x = simulations(50, features, conditions)
    kwargs = {"num_transforms": 2, "hidden_features": (8, 6), **kwargs}
    estimator = hostile(build_iresnet(theta, x, **kwargs), 0.3).double().eval()
    for layer in estimator.modules():
        if isinstance(layer, InvertibleResidualBlock):
            layer.solver = FixedPoint(atol=1e-11, rtol=1e-11)
    return estimator, theta[:5].double(), x[:5].double()


def dense_log_prob(estimator, theta, x):
    """From the noise alone and the determinant of its Jacobian."""

    def to_noise(theta):
        return estimator.inverse_transform(theta, x)

    jacobian = torch.autograd.functional.jacobian(
        lambda theta: to_noise(theta).sum(0), theta, create_graph=True
    )
    base = torch.distributions.Normal(0.0, 1.0).log_prob(to_noise(theta)).sum(-1)
    return base + torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet


@pytest.fixture(scope="module", autouse=True)
def _folder_for_logs(tmp_path_factory):
    """sbi's trainers write theirs where they are run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sbi"))
        yield


@pytest.fixture(scope="module")
def trainer():
    torch.manual_seed(0)
    theta = PRIOR.sample((2000,))
    trainer = NPE(PRIOR, density_estimator=build_small, show_progress_bars=False)
    trainer.append_simulations(theta, simulate(theta))
    trainer.train(learning_rate=2e-3, max_num_epochs=25)
    return trainer


@pytest.fixture(scope="module")
def posterior(trainer):
    return trainer.build_posterior().set_default_x(OBSERVED)


def test_the_posterior_has_the_mean_and_covariance_of_the_closed_form(posterior):
    truth = true_posterior(OBSERVED[0])
    samples = posterior.sample((4000,), show_progress_bars=False)
    deviation = truth.variance.sqrt()
    assert ((samples.mean(0) - truth.mean).abs() < 0.4 * deviation).all()
    ratio = samples.T.cov() / truth.covariance_matrix
    assert (ratio - 1).abs().max() < 0.4


def test_the_posterior_has_the_density_of_the_closed_form(posterior):
    theta = PRIOR.sample((2000,))
    x = simulate(theta)
    with torch.no_grad():
        log_prob = posterior.posterior_estimator.log_prob(theta[None], x)[0]
    divergence = true_posterior(x).log_prob(theta) - log_prob
    assert -4 * divergence.std() / 2000**0.5 < divergence.mean() < 0.1


def test_log_prob_is_differentiable_and_map_is_near_the_mode(posterior):
    truth = true_posterior(OBSERVED[0])
    theta = truth.sample((3,)).requires_grad_()
    posterior.log_prob(theta, track_gradients=True).sum().backward()
    assert theta.grad.isfinite().all()
    assert theta.grad.abs().min() > 0

    mode = posterior.map(num_iter=100, num_init_samples=100, show_progress_bars=False)
    assert ((mode - truth.mean).abs() < 0.5 * truth.variance.sqrt()).all()


def test_batches_of_observations_are_sampled_each_by_itself(posterior):
    x = torch.stack([OBSERVED[0], -OBSERVED[0]])
    samples = posterior.sample_batched((1000,), x=x, show_progress_bars=False)
    assert samples.shape == (1000, 2, 2)
    truth = true_posterior(x)
    assert ((samples.mean(0) - truth.mean).abs() < 0.4 * truth.variance.sqrt()).all()


@pytest.mark.parametrize("copied", ["deepcopy", "pickle"])
def test_copies_after_use_give_the_same_posterior(posterior, copied):
    theta = posterior.sample((5,), show_progress_bars=False)
    expected = posterior.log_prob(theta)
    for original in (posterior, posterior.posterior_estimator):
        again = pickle.loads(pickle.dumps(original))
        other = copy.deepcopy(original) if copied == "deepcopy" else again
        if original is posterior:
            assert torch.equal(other.log_prob(theta), expected)
        else:
            x = OBSERVED.expand(5, 3)
            assert torch.equal(other.log_prob(theta, x), original.log_prob(theta, x))


def test_a_state_dict_restores_the_estimator(posterior):
    estimator, theta = posterior.posterior_estimator, PRIOR.sample((20,))
    fresh = build_small(theta, simulate(theta)).eval()
    args = theta[None], simulate(theta)
    assert not torch.allclose(fresh.log_prob(*args), estimator.log_prob(*args))
    fresh.load_state_dict(copy.deepcopy(estimator.state_dict()))
    assert torch.equal(fresh.log_prob(*args), estimator.log_prob(*args))


def test_a_second_round_trains_on_atoms(trainer, posterior):
    with pytest.warns(UserWarning, match="inference object is pickled"):
        trainer = copy.deepcopy(trainer)
    theta = posterior.sample((300,), show_progress_bars=False)
    trainer.append_simulations(theta, simulate(theta), proposal=posterior)
    before = copy.deepcopy(trainer._neural_net.state_dict())
    trainer.train(max_num_epochs=3, num_atoms=5)
    after = trainer._neural_net.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    assert any(not torch.equal(value, before[name]) for name, value in after.items())

    samples = trainer.build_posterior().sample((500,), x=OBSERVED, show_progress_bars=False)
    truth = true_posterior(OBSERVED[0])
    assert ((samples.mean(0) - truth.mean).abs() < 0.4 * truth.variance.sqrt()).all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_the_atomic_loss_has_the_gradient_of_the_dense_truth(training, monkeypatch):
    estimator, theta, x = make_estimator()
    estimator.train(training)
    prior = MultivariateNormal(torch.zeros(2).double(), 9 * torch.eye(2).double())
    trainer = NPE(prior, show_progress_bars=False)
    trainer._neural_net, trainer._num_atoms = estimator, 3
    trainer._use_combined_loss = True
    masks = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0])

    def gradient():
        torch.manual_seed(3)
        losses = -trainer._log_prob_proposal_posterior_atomic(theta, x, masks)
        return torch.autograd.grad(losses.mean(), list(estimator.parameters()))

    gradients = gradient()
    monkeypatch.setattr(
        estimator, "log_prob", lambda theta, x: dense_log_prob(estimator, theta[0], x)[None]
    )
    for result, expected in zip(gradients, gradient()):
        torch.testing.assert_close(result, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("features", range(1, 11))
def test_validation_knows_the_log_prob_exactly(features):
    estimator, theta, x = make_estimator(features, hidden_features=(24, 24))
    with torch.no_grad():
        log_prob = estimator.log_prob(theta[None], x)
        assert torch.equal(estimator.log_prob(theta[None], x), log_prob)
    truth = dense_log_prob(estimator, theta, x)
    torch.testing.assert_close(log_prob[0], truth, rtol=0, atol=1e-8)
    torch.testing.assert_close(estimator.loss(theta, x), -truth, rtol=0, atol=1e-8)


def test_samples_and_scores_have_the_shapes_of_sbi():
    estimator, theta, x = make_estimator()
    assert estimator.input_shape == (2,)
    assert estimator.condition_shape == (3,)
    samples, log_prob = estimator.sample_and_log_prob((4, 6), x)
    assert samples.shape == (4, 6, 5, 2)
    assert log_prob.shape == (4, 6, 5)
    torch.testing.assert_close(log_prob[1], estimator.log_prob(samples[1], x), rtol=0, atol=1e-8)
    assert estimator.sample((7,), x).shape == (7, 5, 2)
    assert estimator.loss(theta, x).shape == (5,)

    each = [estimator.log_prob(samples[0][:, i : i + 1], x[i : i + 1]) for i in range(5)]
    torch.testing.assert_close(log_prob[0], torch.cat(each, 1), rtol=0, atol=1e-8)


def test_noise_of_data_is_what_lc2st_expects(posterior):
    estimator = posterior.posterior_estimator
    theta = PRIOR.sample((500,))
    x = simulate(theta)
    samples = estimator.sample((1,), x)[0]
    test = LC2ST_NF(
        theta,
        xs=x,
        posterior_samples=samples,
        flow_inverse_transform=estimator.inverse_transform,
        flow_base_dist=MultivariateNormal(torch.zeros(2), torch.eye(2)),
        num_eval=100,
        classifier="random_forest",
        classifier_kwargs={"n_estimators": 5},
    )
    for noise in (test.theta_p, test.theta_q):
        assert (noise.mean(0).abs() < 0.3).all()
        assert ((noise.T.cov() - torch.eye(2)).abs() < 0.3).all()
    test.train_on_observed_data()
    assert 0 <= test.get_statistic_on_observed_data(x_o=OBSERVED) <= 0.25


Z_SCORES = {
    "none": lambda x: (torch.zeros(2), torch.ones(2)),
    "independent": lambda x: (x.mean(0), x.std(0)),
    "structured": lambda x: (x.mean().expand(2), x.std(1).mean().expand(2)),
}


@pytest.mark.parametrize("name", Z_SCORES)
def test_z_scores_standardise_both_sides(name):
    theta, x = 3 + 5 * torch.randn(100, 2), 7 - 4 * torch.randn(100, 2)
    x[:, 1] *= 3
    plain = hostile(build_small(theta, x, z_score_x=None, z_score_y=None)).eval()
    scored = build_small(theta, x, z_score_x=name, z_score_y=name).eval()
    parts = plain.net.transform.transforms
    scored.net.transform.transforms[-len(parts) :].load_state_dict(parts.state_dict())
    scored.embedding_net[-1].load_state_dict(plain.embedding_net[-1].state_dict())

    (mean, deviation), (x_mean, x_deviation) = Z_SCORES[name](theta), Z_SCORES[name](x)
    expected = plain.log_prob((theta[None] - mean) / deviation, (x - x_mean) / x_deviation)
    result = scored.log_prob(theta[None], x)
    torch.testing.assert_close(result, expected - deviation.log().sum(), rtol=1e-4, atol=1e-4)


def test_samples_stay_in_the_support_of_the_prior():
    prior = BoxUniform(-torch.ones(2), 2 * torch.ones(2))
    theta, x = prior.sample((100,)), torch.randn(100, 3)
    estimator = build_small(theta, x, z_score_x="transform_to_unconstrained", x_dist=prior)
    samples = hostile(estimator).sample((1000,), x[:1])
    assert prior.support.check(samples).all()
    copied = pickle.loads(pickle.dumps(estimator))
    assert torch.equal(copied.log_prob(theta[None], x), estimator.log_prob(theta[None], x))

    for nowhere in (None, object()):
        with pytest.raises(ValueError, match=r"x_dist with a support"):
            build_small(theta, x, z_score_x="transform_to_unconstrained", x_dist=nowhere)


def test_an_unknown_z_score_is_refused():
    for name in ("z_score_x", "z_score_y"):
        with pytest.raises(ValueError, match="z-scoring"):
            build_small(*simulations(9), **{name: "sometimes"})


def test_other_arguments_reach_the_flow():
    solver = FixedPoint(max_steps=7)
    arguments = {"num_transforms": 3, "lipschitz": 0.4, "solver": solver, "log_det": Exact()}
    estimator = build_iresnet(
        *simulations(9), hidden_features=(8, 6, 4), elementwise=2, **arguments
    )
    blocks = [m for m in estimator.modules() if isinstance(m, InvertibleResidualBlock)]
    assert len(blocks) == 5
    for block in blocks[2:]:
        assert block.branch.hidden_features == (8, 6, 4)
        assert block.branch.lipschitz_bound() <= 0.4
        assert block.solver is solver
        assert block.log_det == Exact()
    with pytest.raises(TypeError, match="num_bins"):
        build_iresnet(*simulations(9), num_bins=8)


def test_a_class_given_as_embedding_net_is_refused():
    with pytest.raises(TypeError, match=r"embedding_net must be a torch.nn.Module, got the class"):
        build_iresnet(*simulations(9), embedding_net=nn.Identity)


def test_an_embedding_net_is_trained_along():
    class Embedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 5)

        def forward(self, x):
            return self.linear(x.flatten(1))

    theta, x = torch.randn(60, 2), torch.randn(60, 3, 4)
    build = partial(build_small, embedding_net=Embedding())
    trainer = NPE(MultivariateNormal(torch.zeros(2), torch.eye(2)), density_estimator=build)
    trainer.append_simulations(theta, x).train(max_num_epochs=2, show_train_summary=False)
    estimator = trainer.build_posterior().posterior_estimator
    assert estimator.condition_shape == (3, 4)
    assert estimator.sample((7,), x[:5]).shape == (7, 5, 2)
    estimator.loss(theta, x).sum().backward()
    assert all(p.grad.abs().max() > 0 for p in estimator.embedding_net.parameters())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("slice_np_vectorized", {"num_chains": 100, "warmup_steps": 3}),
        ("nuts_pyro", {"num_chains": 1, "warmup_steps": 50}),  # which asks for gradients
    ],
    ids=["slices", "NUTS"],
)
def test_the_likelihood_gives_the_posterior_by_mcmc(method, options):
    theta = PRIOR.sample((1000,))
    trainer = NLE(
        PRIOR,
        density_estimator=lambda theta, x: build_small(x, theta),
        show_progress_bars=False,
    )
    trainer.append_simulations(theta, simulate(theta))
    trainer.train(learning_rate=5e-3, max_num_epochs=20)
    potential, transform = likelihood_estimator_based_potential(
        trainer._neural_net, PRIOR, OBSERVED
    )
    posterior = MCMCPosterior(
        potential,
        PRIOR,
        transform,
        method,
        thin=1,
        init_strategy="proposal",
        **options,
    )
    samples = posterior.sample((300,), x=OBSERVED, show_progress_bars=False)
    truth = true_posterior(OBSERVED[0])
    assert ((samples.mean(0) - truth.mean).abs() < 0.5 * truth.variance.sqrt()).all()
