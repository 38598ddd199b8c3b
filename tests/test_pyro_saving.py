"""Copies, pickles and the parameter store, in this process and in a fresh one."""

import copy
import io
import pickle

import pytest
import torch

pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
from cases import hostile
from pyro.distributions.transforms import iterated
from pyro_cases import both_sides, make_transform, points

from iresnet_flows.pyro import invertible_residual

pytestmark = pytest.mark.usefixtures("empty_param_store")



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
