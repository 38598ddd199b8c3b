"""What is remembered is never out of date."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.remembered import Remembered


def double(tensors):
    CALLS.append(tensors)
    return 2 * tensors[0]


CALLS: list[tuple[torch.Tensor, ...]] = []


@pytest.fixture
def remembered():
    CALLS.clear()
    return Remembered(double)


def test_the_function_runs_once_for_the_same_values(remembered):
    x = torch.randn(3)
    assert torch.equal(remembered(x), 2 * x)
    assert torch.equal(remembered(x.clone()), 2 * x)
    assert len(CALLS) == 1


def through_numpy(x):
    pytest.importorskip("numpy")
    x.detach().numpy().__imul__(2)


@pytest.mark.parametrize(
    "edit",
    [
        lambda x: x.mul_(2),
        lambda x: x.data.mul_(2),
        through_numpy,
        lambda x: setattr(x, "data", 3 * x.data),
    ],
    ids=["in place", "through .data", "through numpy", "by assignment"],
)
def test_every_way_to_change_a_tensor_is_noticed(remembered, edit):
    x = torch.randn(3)
    remembered(x)
    edit(x)
    assert torch.equal(remembered(x), 2 * x)


def test_another_dtype_is_another_tensor(remembered):
    x = torch.ones(3)
    remembered(x)
    assert remembered(x.double()).dtype == torch.float64


def test_what_was_computed_in_inference_mode_serves_a_gradient_later():
    block, x = InvertibleResidualBlock(LipschitzMLP(3)), torch.randn(4, 3)
    with torch.inference_mode():
        block(x)
    block(x)[1].sum().backward()
    assert all(w.grad is not None for w in block.branch.weights)


def test_batches_of_torch_func_are_not_remembered(remembered):
    x = torch.randn(4, 3)
    assert torch.equal(torch.func.vmap(remembered)(x), 2 * x)
    assert remembered.last is None


def test_copies_start_empty(remembered):
    remembered(torch.randn(3))
    for other in (copy.deepcopy(remembered), pickle.loads(pickle.dumps(remembered))):
        assert other.last is None
        assert other.function is double


def test_the_bound_follows_edits_that_count_no_version():
    branch = LipschitzMLP(3, lipschitz=0.5)
    branch.lipschitz_bound()
    for weight in branch.weights:
        weight.data.mul_(100.0)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: branch(x[None])[0]))(torch.randn(50, 3))
    assert torch.linalg.matrix_norm(jacobian, 2).max() <= 0.5
