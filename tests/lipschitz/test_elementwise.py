"""A net of one hidden layer for each entry alone; tests/lipschitz/test_attacks.py attacks it."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile

from iresnet_flows import (
    CayleyBlock,
    Exact,
    InvertibleResidualBlock,
    Newton,
    PowerSeries,
    RussianRoulette,
)
from iresnet_flows.lipschitz import LipschitzElementwise


def with_weights(inner, outer, **kwargs):
    """A branch of `tanh` with one hidden feature for each of the entries."""
    g = LipschitzElementwise(len(inner), 1, activation="tanh", **kwargs).double()
    with torch.no_grad():
        g.weights[0].copy_(torch.tensor(inner, dtype=torch.float64).unsqueeze(1))
        g.weights[1].copy_(torch.tensor(outer, dtype=torch.float64).unsqueeze(1))
        for bias in g.biases:
            bias.zero_()
    return g


def test_the_value_is_that_of_the_formula_and_each_entry_is_shrunk_for_itself():
    g = with_weights([5.0, 0.5], [2.0, 0.3], lipschitz=0.8)
    x = torch.randn(6, 2, dtype=torch.float64)
    heights = torch.tensor([0.8 / 5, 0.3], dtype=torch.float64)
    expected = heights * (torch.tensor([5.0, 0.5], dtype=torch.float64) * x).tanh()
    torch.testing.assert_close(g(x), expected, rtol=1e-11, atol=0)
    assert 0.8 * (1 - 1e-12) <= float(g.lipschitz_bound()) <= 0.8


def test_a_branch_below_its_bound_says_so():
    g = with_weights([0.5, 0.2], [0.4, 0.3], lipschitz=0.8)
    assert float(g.lipschitz_bound()) == pytest.approx(0.2, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-200, 0.0, 1e200])
def test_weights_out_of_any_range_are_held_and_have_gradients(scale):
    g = LipschitzElementwise(2, 4).double()
    with torch.no_grad():
        for weight in g.weights:
            weight.mul_(scale)
    assert 0 <= g.lipschitz_bound() <= 0.9
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(g(x).sum(), x, create_graph=True)
    assert (slopes.abs() <= 0.9).all()
    (g(x).sum() + slopes.square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in (*g.weights, g.biases[1]))


def test_the_gradient_of_weights_that_are_shrunk_is_that_of_finite_differences():
    g = LipschitzElementwise(2, 4, lipschitz=0.3).double()
    x = torch.randn(3, 2, dtype=torch.float64)

    def value(inner, outer):
        return torch.func.functional_call(g, {"weights.0": inner, "weights.1": outer}, (x,))

    weights = tuple(w.detach().requires_grad_() for w in g.weights)
    assert float(g.lipschitz_bound()) == pytest.approx(0.3)
    assert torch.autograd.gradcheck(value, weights)
    assert torch.autograd.gradgradcheck(value, weights)


@pytest.mark.parametrize("kind", [InvertibleResidualBlock, CayleyBlock])
def test_many_entries_have_the_sum_of_their_log_dets(kind):
    block = kind(hostile(LipschitzElementwise(300, 4, 0.97).double()), solver=Newton())
    x = torch.randn(2, 300, dtype=torch.float64, requires_grad=True)
    y, logabsdet = block(x)
    (slopes,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(logabsdet, slopes.log().sum(1), rtol=1e-7, atol=1e-7)


def test_it_is_exact_by_default_and_with_random_signs():
    g = hostile(LipschitzElementwise(100, 4, 0.8).double())
    x = torch.randn(3, 100, dtype=torch.float64)
    truth = InvertibleResidualBlock(g, Exact()).log_abs_det(x).value
    for block in (InvertibleResidualBlock(g), InvertibleResidualBlock(g).eval()):
        found = block.log_abs_det(x)
        assert torch.equal(found.value, truth)
        assert not found.bias_bound.any()
    for estimator in (PowerSeries(tolerance=1e-9, probes=2), RussianRoulette(terms=90)):
        found = InvertibleResidualBlock(g, estimator).log_abs_det(x)
        torch.testing.assert_close(found.value, truth, rtol=0, atol=1e-6)


def test_newton_needs_few_steps_in_any_dimension():
    block = InvertibleResidualBlock(
        hostile(LipschitzElementwise(200, 8, 0.97).double()), solver=Newton()
    )
    x = torch.randn(20, 200, dtype=torch.float64)
    solution = block.solve(block.transform(x))
    assert solution.converged.all()
    assert (solution.steps <= 20).all()
    assert float((solution.value.detach() - x).norm(dim=1).max()) <= 1e-9 * math.sqrt(200)


def test_a_context_moves_and_scales_each_entry_within_the_bound():
    g = hostile(LipschitzElementwise(2, 4, context_features=3).double())
    x, context = torch.randn(5, 2).double(), 10 * torch.randn(5, 3).double()
    jacobian = g.at(context).linearize(x)[1]
    assert (jacobian.diagonal().abs() <= 0.9).all()
    assert not torch.allclose(g(x, context), g(x, -context))
    torch.testing.assert_close(g(x, context[0]), g(x, context[:1].expand(5, 3)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": 0}, "features must be at least 1, got 0"),
        ({"hidden_features": 3}, "each of hidden_features must be a multiple of 2, got 3"),
        ({"hidden_features": 0}, "hidden_features must"),
        ({"lipschitz": 1.0}, r"lipschitz must lie in \(0, 1\), got 1.0"),
        ({"activation": "relu"}, "unknown activation 'relu': did you mean 'elu'"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, message):
    with pytest.raises(ValueError, match=message):
        LipschitzElementwise(**{"features": 2, **arguments})
