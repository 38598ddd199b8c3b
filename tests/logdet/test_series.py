"""The power series: its noise against its standard error, its bias against its certificate."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from cases import AllSigns, AllSignsRoulette, hostile

from iresnet_flows import (
    Exact,
    InvertibleResidualBlock,
    LipschitzMLP,
    PowerSeries,
    RussianRoulette,
)
from iresnet_flows.errors import SeriesNotConvergedWarning

DRAWS = 1000


class NoTrace:
    """A Jacobian whose trace is not cheap."""

    def __init__(self, jacobian):
        self.jacobian = jacobian

    def __getattr__(self, name):
        return getattr(self.jacobian, name)

    def known_traces(self, count):
        return 0

    def traces(self, count):
        return ()


def build(log_det, *hidden: int, lipschitz: float = 0.7, d: int = 4) -> InvertibleResidualBlock:
    torch.manual_seed(3)
    g = LipschitzMLP(d, hidden or (8, 8), lipschitz=lipschitz, activation="tanh")
    return InvertibleResidualBlock(hostile(g.double()), log_det)


def estimate(estimator, jacobian, x, lipschitz):
    return estimator.attach(estimator.draw(jacobian, x, lipschitz), jacobian)


def points(d: int = 4, batch: int = 3) -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(batch, d, dtype=torch.float64)


def truth(block: InvertibleResidualBlock, x: torch.Tensor) -> torch.Tensor:
    _, jacobian = block.branch.at().linearize(x)
    return estimate(Exact(), jacobian, x, torch.tensor(0.9)).value


@pytest.mark.parametrize("hidden", [(8,), (8, 8), (8, 8, 8)])
def test_the_estimate_is_unbiased_and_knows_its_standard_error(hidden):
    block, x = build(PowerSeries(terms=30, probes=DRAWS), *hidden), points()
    value, standard_error, bias_bound = block.log_abs_det(x)
    assert ((value - truth(block, x)).abs() <= 4 * standard_error + bias_bound).all()
    assert (standard_error > 0).all()

    block.log_det = PowerSeries(terms=30, probes=20)
    estimates = [block.log_abs_det(x) for _ in range(150)]
    empirical = torch.stack([e.value for e in estimates]).std(0)
    reported = torch.stack([e.standard_error for e in estimates]).square().mean(0).sqrt()
    torch.testing.assert_close(reported, empirical, rtol=0.2, atol=0)


def test_a_single_probe_does_not_claim_a_standard_error():
    block = build(PowerSeries(terms=5))
    assert block.log_abs_det(points()).standard_error.isnan().all()


@pytest.mark.parametrize("lipschitz", [0.5, 0.9, 0.97])
@pytest.mark.parametrize("terms", [1, 2, 5, 20])
@pytest.mark.parametrize("probes", [1, 3])
def test_the_bias_bound_bounds_what_is_left_out_for_the_same_probes(lipschitz, terms, probes):
    block, x = build(None, lipschitz=lipschitz), points(batch=20)
    estimates = []
    for count in (terms, 1000):
        generator = torch.Generator().manual_seed(0)
        block.log_det = PowerSeries(terms=count, probes=probes, generator=generator)
        estimates.append(block.log_abs_det(x))
    short, long = estimates
    left_out = (short.value - long.value).abs()
    assert (left_out <= short.bias_bound + 1e-12).all()
    assert (short.bias_bound > 0).all()


def test_the_bias_bound_is_reached_by_the_hardest_jacobian():
    block = build(PowerSeries(terms=10), 1, d=1, lipschitz=0.9)
    with torch.no_grad():
        block.branch.weights[0].fill_(5.0)
        block.branch.weights[1].fill_(-5.0)
        block.branch.biases[0].zero_()
    x = torch.zeros(1, 1, dtype=torch.float64)
    estimate = block.log_abs_det(x)
    left_out = float((estimate.value - truth(block, x)).detach().abs())
    assert 0.9 * float(estimate.bias_bound) <= left_out <= float(estimate.bias_bound)


def test_the_exact_trace_reduces_the_variance():
    block, x = build(None), points()
    g = block.branch.at()
    _, jacobian = g.linearize(x)
    series = PowerSeries(terms=30, probes=DRAWS)
    controlled = estimate(series, jacobian, x, g.lipschitz)
    plain = estimate(series, NoTrace(jacobian), x, g.lipschitz)
    assert (
        (plain.value - truth(block, x)).abs() <= 4 * plain.standard_error + plain.bias_bound
    ).all()
    assert (controlled.standard_error < 0.7 * plain.standard_error + plain.bias_bound).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-4, 1e-8])
def test_the_tolerance_is_met(tolerance):
    block, x = build(PowerSeries(tolerance=tolerance, probes=4), lipschitz=0.9), points()
    assert (block.log_abs_det(x).bias_bound <= tolerance).all()


def test_no_more_terms_are_taken_than_the_tolerance_asks_for():
    block, x = build(None), points()
    g = block.branch.at()
    _, jacobian = g.linearize(x)
    calls = []

    class Counting(NoTrace):
        def apply_transposed(self, w):
            calls.append(w)
            return self.jacobian.apply_transposed(w)

    loose = estimate(PowerSeries(tolerance=0.1), Counting(jacobian), x, g.lipschitz)
    few = len(calls)
    calls.clear()
    estimate(PowerSeries(tolerance=1e-6), Counting(jacobian), x, g.lipschitz)
    assert (loose.bias_bound <= 0.1).all()
    assert 1 <= few < len(calls) < 60


def test_a_series_that_was_cut_says_by_how_much_and_what_to_change():
    block, x = build(PowerSeries(max_terms=2, tolerance=1e-6)), points()
    with pytest.warns(
        SeriesNotConvergedWarning,
        match=r"cut after 2 terms with a certified tail of \d.\de-\d\d nats, above the tolerance "
        r"1.0e-06: raise max_terms or tolerance, or .* smaller lipschitz",
    ):
        estimate = block.log_abs_det(x)
    assert (estimate.bias_bound > 1e-6).any()


@pytest.mark.parametrize("name", ["terms", "probes", "max_terms"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        PowerSeries(**{name: 0})


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.nan])
def test_a_tolerance_that_is_not_positive_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance must be positive"):
        PowerSeries(tolerance=tolerance)


def test_a_generator_governs_the_draws_and_leaves_the_global_one_alone():
    x = points()
    generator = torch.Generator().manual_seed(5)
    block = build(PowerSeries(generator=generator))
    state = torch.get_rng_state()
    first, second = block.log_abs_det(x).value, block.log_abs_det(x).value
    generator.manual_seed(5)
    again = block.log_abs_det(x).value
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_global_seed_governs_where_no_generator_is_given():
    block, x = build(PowerSeries()), points()
    torch.manual_seed(1)
    first = block(x)[1]
    torch.manual_seed(1)
    assert torch.equal(block(x)[1], first)
    assert not torch.equal(block(x)[1], first)


def test_within_frozen_the_draws_repeat_and_both_directions_agree():
    block, x = build(PowerSeries(terms=60)), points()
    state = torch.get_rng_state()
    with block.frozen(7) as same:
        assert same is block
        y, there = block(x)
        assert torch.equal(block(x)[1], there)
        assert torch.equal(block.log_abs_det(x).value, there)
        torch.testing.assert_close(block.inverse(y)[1], -there, rtol=1e-8, atol=1e-8)
        with block.frozen(8):
            assert not torch.equal(block(x)[1], there)
        assert torch.equal(block(x)[1], there)
    assert torch.equal(torch.get_rng_state(), state)
    with block.frozen(7):
        assert torch.equal(block(x)[1], there)
    assert not torch.equal(block(x)[1], there)


def test_frozen_ends_with_an_exception_too():
    block = build(PowerSeries())
    with pytest.raises(ZeroDivisionError), block.frozen(7):
        raise ZeroDivisionError
    assert block.seed is None


def test_frozen_ends_in_whatever_order_it_is_left():
    """As where two threads have entered it."""
    block, x = build(PowerSeries()), points()
    first, second = block.frozen(1), block.frozen(2)
    first.__enter__()
    second.__enter__()
    of_second = block(x)[1]
    first.__exit__(None, None, None)
    assert torch.equal(block(x)[1], of_second)
    second.__exit__(None, None, None)
    assert block.seed is None
    assert not torch.equal(block(x)[1], block(x)[1])


def test_the_mean_gradient_is_the_exact_gradient():
    block, x = build(None), points()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def gradient(log_det) -> torch.Tensor:
        block.log_det = log_det
        parts = torch.autograd.grad(
            weights @ block(x)[1], [*block.parameters()], allow_unused=True
        )
        return torch.cat([p.flatten() for p in parts if p is not None])

    expected = gradient(Exact())
    draws = torch.stack([gradient(PowerSeries(terms=30)) for _ in range(150)])
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= 4.5 * standard_error + 1e-5).all()


@pytest.mark.parametrize("estimator", [AllSigns(terms=200), AllSignsRoulette(terms=200)])
@pytest.mark.parametrize("hidden", [(8,), (8, 8), (8, 8, 8)])
@pytest.mark.parametrize("training", [True, False])
def test_over_all_signs_the_value_and_both_derivatives_are_exact(estimator, hidden, training):
    block = build(estimator, *hidden, d=3).train(training)
    exact, x = copy.copy(block), points(3).requires_grad_()
    exact.log_det = Exact()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    inputs = [x, *block.branch.weights, *list(block.branch.biases)[:-1]]
    results = []
    for each in (block, exact):
        value = each(x)[1]
        first = torch.autograd.grad(weights @ value, inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append((value, *first, *second))
    for result, expected in zip(*results, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PowerSeries(terms=2.5), "terms must be a whole number, got 2.5"),
        (lambda: PowerSeries(probes=None), "probes must be a whole number, got None"),
        (lambda: RussianRoulette(terms=None), "terms must be a whole number, got None"),
        (lambda: PowerSeries(tolerance=None), "tolerance must be a number, got None"),
        (lambda: RussianRoulette(continuation="1/2"), "continuation must be a number, got '1/2'"),
        (lambda: PowerSeries(generator=3), "generator must be a torch.Generator or None, got int"),
        (lambda: RussianRoulette(generator=3), "generator must be a torch.Generator or None"),
    ],
)
def test_arguments_of_another_kind_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()
