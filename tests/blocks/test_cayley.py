"""The Cayley block beyond the contract: its reach, and what it measures."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile

from iresnet_flows import (
    Anderson,
    CayleyBlock,
    Exact,
    FixedPoint,
    LipschitzMLP,
    PowerSeries,
    RussianRoulette,
)
from iresnet_flows.maps.derived import Negative


def build(features: int = 3, hidden=(8, 8), log_det=None, **kwargs) -> CayleyBlock:
    torch.manual_seed(3)
    g = hostile(LipschitzMLP(features, hidden, **kwargs).double(), 2.0)
    return CayleyBlock(g, log_det)


def steepest(sign: float, lipschitz: float = 0.9) -> CayleyBlock:
    block = build(1, (1,), activation="tanh", lipschitz=lipschitz)
    with torch.no_grad():
        block.branch.weights[0].fill_(5.0)
        block.branch.weights[1].fill_(sign * 5.0)
        block.branch.biases[0].zero_()
        block.branch.biases[1].zero_()
    return block


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_stretches_and_shrinks_by_as_much_as_is_stated(sign):
    logabsdet = steepest(sign)(torch.zeros(1, 1, dtype=torch.float64))[1].item()
    assert logabsdet == pytest.approx(-sign * math.log(1.9 / 0.1), rel=1e-6)


@pytest.mark.parametrize("lipschitz", [0.3, 0.9, 0.99])
def test_the_log_det_lies_within_the_stated_bounds(lipschitz):
    block = build(lipschitz=lipschitz)
    logabsdet = block(10 * torch.randn(300, 3, dtype=torch.float64))[1]
    assert logabsdet.abs().max() <= 3 * math.log((1 + lipschitz) / (1 - lipschitz))


def test_the_map_is_strongly_monotone():
    block = build(lipschitz=0.9)
    x, z = 5 * torch.randn(2, 500, 3, dtype=torch.float64)
    ascent = ((block.transform(x) - block.transform(z)) * (x - z)).sum(-1)
    assert (ascent >= 0.1 / 1.9 * (x - z).square().sum(-1)).all()


@pytest.mark.parametrize("hidden", [(8,), (8, 8), (8, 8, 8)])
@pytest.mark.parametrize("estimator", [PowerSeries(terms=60, probes=2000), None])
def test_the_estimate_is_unbiased_and_knows_its_standard_error(hidden, estimator):
    if estimator is None:
        estimator = RussianRoulette(1, probes=2000)
    block, x = build(hidden=hidden, lipschitz=0.8), torch.randn(3, 3, dtype=torch.float64)
    block.log_det = Exact()
    truth = block.log_abs_det(x).value
    block.log_det = estimator
    value, standard_error, bias_bound = block.log_abs_det(x)
    assert ((value - truth).abs() <= 4.5 * standard_error + bias_bound).all()


@pytest.mark.parametrize("terms", [1, 2, 5, 20])
def test_the_bias_bound_bounds_what_is_left_out(terms):
    block, x = build(lipschitz=0.9), torch.randn(20, 3, dtype=torch.float64)
    estimates = []
    for count in (terms, 1000):
        generator = torch.Generator().manual_seed(0)
        block.log_det = PowerSeries(terms=count, generator=generator)
        estimates.append(block.log_abs_det(x))
    short, long = estimates
    assert ((short.value - long.value).abs() <= short.bias_bound + 1e-9).all()


@pytest.mark.parametrize("max_steps", [1, 3, 10, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_bound_of_its_inverse_is_a_bound(max_steps, dtype):
    block = build()
    x = 3 * torch.randn(20, 3, dtype=torch.float64)
    y = block.transform(x)
    g = block.to(dtype).branch.at()
    rhs = math.sqrt(2) * y.to(dtype).double()
    w = FixedPoint().solve(Negative(g.to(torch.float64)), rhs, g.lipschitz).value
    truth = math.sqrt(2) * w - y.to(dtype).double()
    block.solver = Anderson(max_steps=max_steps)
    solution = block.solve(y.to(dtype))
    error = (solution.value.double() - truth).norm(dim=-1)
    assert (error <= solution.error_bound.double() * (1 + 1e-6) + 1e-9).all()
    assert (solution.steps <= max_steps).all()
    if max_steps in (1, 100):
        assert (solution.converged == (max_steps == 100)).all()


def test_a_solution_has_the_gradient_of_the_inverse():
    block = build()
    y = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    tensors = (y, *block.parameters())
    results = [
        torch.autograd.grad(x.square().sum(), tensors)
        for x in (block.solve(y).value, block.invert(y))
    ]
    torch.testing.assert_close(*results)
