"""Copies, pickles and the parameter store, in this process and in a fresh one."""

import copy
import io
import os
import pickle
import subprocess
import sys

import pytest
import torch

pytest.importorskip("pyro")

import pyro
import pyro.distributions as dist
from cases import hostile
from pyro.distributions.transforms import iterated
from pyro_cases import both_sides, make_transform, points
from transform_cases import build

from iresnet_flows.pyro import conditional_invertible_residual, invertible_residual

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


@both_sides
@pytest.mark.parametrize("turned", [False, True], ids=["", "inv"])
def test_saved_modules_are_whole_with_a_live_cache(explicit, turned):
    transform = make_transform(explicit)
    if turned:
        transform = transform.inv
    x = points()
    y = transform(x)
    buffer = io.BytesIO()
    torch.save([transform, y], buffer)
    buffer.seek(0)
    other, _ = torch.load(buffer, weights_only=False)
    torch.testing.assert_close(other(x), y, rtol=0, atol=1e-9)
    torch.testing.assert_close(other.inv(y.clone()), x, rtol=0, atol=1e-9)
    assert list(other.state_dict()) == list(transform.state_dict())


def in_a_fresh_process(program, folder):
    paths = os.pathsep.join(sys.path)
    environment = {**os.environ, "PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, cwd=folder)


def test_pickles_travel_between_processes_with_and_without_pyro(tmp_path):
    """A posterior that was pickled with Pyro imported is read without it, and back."""
    transform, x = build(), points()
    y = transform(x)
    expected = y.detach()
    torch.save([transform, transform.inv, x, expected], tmp_path / "there.pt")
    without_pyro = """
import sys, torch
transform, inverse, x, y = torch.load("there.pt", weights_only=False)
assert "pyro" not in sys.modules
assert torch.allclose(transform(x), y)
assert torch.allclose(inverse(y), x)
torch.save([transform, inverse], "back.pt")
"""
    in_a_fresh_process(without_pyro, tmp_path)
    transform, inverse = torch.load(tmp_path / "back.pt", weights_only=False)
    torch.testing.assert_close(transform(x), expected)
    torch.testing.assert_close(inverse(expected), x)


def test_the_param_store_alone_restores_the_density_in_a_fresh_process(tmp_path):
    """A stack, of which the store keeps the parameters only, and a conditional block."""
    stack = hostile(iterated(2, invertible_residual, 2, [8], explicit="inverse"))
    block = hostile(conditional_invertible_residual(2, 3, [8]))
    pyro.module("stack", stack)
    pyro.module("block", block)
    x, context = torch.randn(5, 2), torch.randn(5, 3)
    y = block.condition(context)(stack.inv(x))
    pyro.get_param_store().save(tmp_path / "params.pt")
    torch.save([x, context, y.detach()], tmp_path / "points.pt")
    program = """
import pyro, torch
from pyro.distributions.transforms import iterated
from iresnet_flows.pyro import conditional_invertible_residual, invertible_residual

x, context, y = torch.load("points.pt")
stack = iterated(2, invertible_residual, 2, [8], explicit="inverse")
block = conditional_invertible_residual(2, 3, [8])
assert not torch.allclose(block.condition(context)(stack.inv(x)), y)
pyro.get_param_store().load("params.pt")
pyro.module("stack", stack, update_module_params=True)
pyro.module("block", block, update_module_params=True)
assert torch.allclose(block.condition(context)(stack.inv(x)), y, atol=1e-6)
"""
    in_a_fresh_process(program, tmp_path)
