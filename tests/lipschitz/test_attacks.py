"""The bound under attack: no weights, points or copies bring a branch above it."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from attacks import BRANCHES, near_and_far, norms, stretched

pytestmark = pytest.mark.numerics

each_branch = pytest.mark.parametrize("name", BRANCHES)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])

ROUNDING = 1 + 1e-12  # of the norms here, which are taken in float64


def check(g, event):
    """The largest norm of the Jacobian that is found, which is below the bound."""
    bound = g.lipschitz_bound()
    assert bound.dtype == torch.float64
    largest = float(norms(g, *near_and_far(g, event)).max())
    assert largest <= bound * ROUNDING
    assert bound <= g.lipschitz
    return largest


@each_branch
@both_dtypes
def test_training_for_the_stretch_comes_near_to_the_bound_and_not_above(name, dtype):
    g, (_, event) = stretched(name, dtype), BRANCHES[name]
    assert check(g, event) > 0.9 * g.lipschitz


@each_branch
@both_dtypes
def test_weights_times_thirty_do_not_break_the_bound(name, dtype):
    g, (_, event) = copy.deepcopy(stretched(name, dtype)), BRANCHES[name]
    for weight in g.weights:
        weight.mul_(30)
    check(g, event)
    for parameter in g.parameters():
        parameter.mul_(30)
    check(g, event)


@each_branch
@both_dtypes
def test_copies_of_the_most_stretched_branch_keep_the_bound(name, dtype):
    g, (make, event) = stretched(name, dtype), BRANCHES[name]
    x, context = near_and_far(g, event, 10)
    expected = norms(g, x, context)
    by_state, by_parameters = make().to(dtype), make().to(dtype)
    by_state.load_state_dict(g.state_dict())
    by_parameters.load_state_dict(dict(g.named_parameters()))
    for other in (by_state, by_parameters, copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert other.lipschitz_bound() == g.lipschitz_bound()
        assert torch.equal(norms(other, x, context), expected)

    for other_dtype in (torch.float32, torch.float64):
        other = copy.deepcopy(g).to(other_dtype)
        where = None if context is None else context.to(other_dtype)
        found = norms(other, x, where)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
        assert found.max() <= other.lipschitz_bound() * ROUNDING
        assert other.lipschitz_bound() <= other.lipschitz
