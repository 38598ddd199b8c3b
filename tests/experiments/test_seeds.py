"""Draws of torch, NumPy and Python are those of a seed, and the caller's are untouched."""

import random

import pytest

np = pytest.importorskip("numpy", reason="the experiments need their extra")

import torch

from iresnet_flows.experiments.seeds import seeded


def drawn(seed):
    with seeded(seed):
        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


@pytest.mark.parametrize("seed", [0, 7, 2**63])
def test_draws_are_those_of_the_seed(seed):
    assert drawn(seed) == drawn(seed)
    for one, other in zip(drawn(seed), drawn(seed + 1), strict=True):
        assert one != other


def test_the_callers_generators_stay_as_they_were_also_after_an_error():
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    drawn(7)
    with pytest.raises(ZeroDivisionError), seeded(7):
        np.random.rand(1 // 0)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert random.getstate() == before[2]
