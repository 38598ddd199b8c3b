"""The promise on the box: stacks of many kinds of layers, also of all hosts, in each host."""

import pytest
import torch

for package in ("nflows", "normflows", "pyro", "zuko", "torchdiffeq"):
    pytest.importorskip(package)

from stacks import FEATURES, STACKS, log_prob_error, round_trip_error, train

# nflows' LULinear still calls it.
pytestmark = pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated:UserWarning")


@pytest.fixture(scope="module", params=STACKS)
def host(request):
    return request.param


@pytest.fixture(scope="module")
def trained(host):
    return train(host)


def test_training_lowers_the_loss(trained):
    assert trained.losses[-1] < trained.losses[0] - 0.2


def test_training_moves_every_parameter(trained):
    parameters = dict(trained.stack.named_parameters())
    assert [name for name, p in parameters.items() if torch.equal(p, trained.start[name])] == []


def test_every_kind_of_layer_is_reached_by_the_gradient(trained):
    trained.stack.zero_grad(set_to_none=True)
    trained.stack.log_prob(trained.x).sum().backward()
    parameters = trained.stack.named_parameters()
    assert [name for name, p in parameters if p.grad is None or not p.grad.any()] == []


def test_log_prob_is_that_of_the_dense_jacobian(trained):
    assert log_prob_error(trained) < 1e-8


def test_both_round_trips_return_in_single_precision(trained):
    assert round_trip_error(trained) < 1e-5


def test_samples_are_scored(trained):
    trained.stack.eval()
    with torch.no_grad():
        samples = trained.stack.sample(50)
        assert samples.shape == (50, FEATURES)
        assert trained.stack.log_prob(samples).isfinite().all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_saved_weights_give_a_fresh_stack_the_same_density(host, trained, training, tmp_path):
    torch.save(trained.stack.state_dict(), tmp_path / "stack.pt")
    torch.manual_seed(5)
    fresh = STACKS[host]()
    fresh.load_state_dict(torch.load(tmp_path / "stack.pt", weights_only=True))
    expected = trained.stack.train(training).log_prob(trained.x)
    assert torch.equal(fresh.train(training).log_prob(trained.x), expected)
