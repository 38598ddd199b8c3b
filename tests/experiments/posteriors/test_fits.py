"""Every family of guides learns, and the time it is given is the time it takes."""

import pytest
import torch

pytest.importorskip("pyro")
pytest.importorskip("sbi")
pytest.importorskip("rich")

import pyro

from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.machines import on_threads
from iresnet_flows.experiments.posteriors import fits, npe
from iresnet_flows.experiments.posteriors.fits import fit
from iresnet_flows.experiments.posteriors.guides import GUIDES
from iresnet_flows.experiments.posteriors.measures import elbo, weigh
from iresnet_flows.experiments.posteriors.targets import TaskTarget
from iresnet_flows.experiments.posteriors.tasks import TASKS


@pytest.fixture(autouse=True)
def _as_in_a_run():
    # Threads that wait for each other on a busy machine use up the processor's time.
    with pyro.get_param_store().scope(), on_threads(1):
        yield


@pytest.fixture
def target():
    x = torch.tensor([1.0, -2.0])
    return TaskTarget(TASKS["gaussian_mixture"], x, torch.zeros(1, 2))


@pytest.mark.parametrize("name", GUIDES)
def test_every_guide_learns(name, target):
    torch.manual_seed(3)  # a start that is not near the posterior by chance
    recipe = GUIDES[name]
    start = recipe.make(target.model)
    start()
    before = elbo(weigh(target, start, 500)[1])
    found = fit(target, recipe, seconds=3)
    after = elbo(weigh(target, found.guide, 500)[1])
    assert after.value > before.value + 1
    assert found.steps > 5
    assert 3 <= found.seconds < 4
    assert found.parameters == sum(p.numel() for p in found.guide.parameters())


def test_likelihood_enters_by_and_by(target, monkeypatch):
    powers = []
    model = target.model

    def watched(power=1.0):
        powers.append(power)
        model(power)

    monkeypatch.setattr(target, "model", watched)
    fit(target, fits.Guide("normal", GUIDES["normal"].make, 1e-2), seconds=1)
    # The first call is that in which the guide looks at the model.
    assert powers[0] == 1
    assert target.coldest <= powers[1] < 2 * target.coldest
    assert powers[1:] == sorted(powers[1:])
    assert powers[-1] == 1


def test_gradients_that_are_never_finite_end_the_fit(target):
    target.observed = torch.tensor([torch.nan, 0.0])
    with pytest.raises(Diverged, match="gradients were not finite"):
        fit(target, GUIDES["normal"], seconds=20)


@pytest.mark.parametrize("name", npe.ESTIMATORS)
def test_estimators_are_trained_by_sbi(name):
    target = TaskTarget(TASKS["two_moons"], torch.zeros(2), torch.zeros(1, 2))
    trained = npe.train(target, npe.ESTIMATORS[name], simulations=100, epochs=2)
    assert trained.epochs <= 3
    assert trained.parameters > 1000
    draws, log_weights = npe.weigh(target, trained.posterior, 50)
    assert draws.shape == (50, 2)
    assert (draws.abs() <= 1).all()
    assert log_weights.isfinite().all()


def test_estimation_needs_a_simulator(target):
    with pytest.raises(TypeError, match="Gaussian mixture has no simulator"):
        npe.train(target, npe.ESTIMATORS["maf"], simulations=10)
