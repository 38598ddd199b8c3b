"""Russian roulette: no bias, a spread that is known, and the refusal of spreads that are not."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzMLP, RussianRoulette
from iresnet_flows.errors import InfiniteVariance
from iresnet_flows.maps.jacobians import MatrixJacobian
from iresnet_flows.maps.linear import Matrix

RESIDUAL_FLOWS = RussianRoulette(terms=2, start=1.0, continuation=0.5, heavy_tail="allow")


def build(log_det, lipschitz: float = 0.8, hidden=(8, 8)) -> InvertibleResidualBlock:
    torch.manual_seed(3)
    g = hostile(LipschitzMLP(4, hidden, lipschitz=lipschitz).double())
    with torch.no_grad():
        for weight in g.weights:  # up to the bound
            weight.mul_(10.0)
    return InvertibleResidualBlock(g, log_det)


def points() -> torch.Tensor:
    torch.manual_seed(4)
    return torch.randn(3, 4, dtype=torch.float64)


def truth(block: InvertibleResidualBlock, x: torch.Tensor) -> torch.Tensor:
    before, block.log_det = block.log_det, Exact()
    value = block.log_abs_det(x).value.detach()
    block.log_det = before
    return value


@pytest.mark.parametrize("terms", [1, 3, None])
@pytest.mark.parametrize("start", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("hidden", [(8, 8), (8, 8, 8)])
def test_the_value_is_unbiased_however_few_terms_are_certain(terms, start, hidden):
    estimator = RussianRoulette(terms, tolerance=1.0, start=start, probes=2000)
    block, x = build(estimator, hidden=hidden), points()
    value, standard_error, bias_bound = block.log_abs_det(x)
    assert ((value - truth(block, x)).abs() <= 4 * standard_error).all()
    assert (bias_bound == 0).all()


@pytest.mark.parametrize(("start", "unbiased"), [(0.5, True), (1e-9, False)])
def test_a_strong_contraction_needs_the_tail(start, unbiased):
    eye, slopes = torch.eye(4).double(), torch.ones(3, 1, 4).double()
    jacobian = MatrixJacobian((Matrix(0.7 * eye), Matrix(-eye)), (slopes,))
    estimator = RussianRoulette(1, start=start, probes=2000)
    draw = estimator.draw(jacobian, torch.zeros(3, 4).double(), torch.tensor(0.7).double())
    value, standard_error, _ = estimator.attach(draw, jacobian)
    within = (value - 4 * math.log(0.3)).abs() <= 4 * standard_error + 1e-9
    assert within.all() == unbiased


def test_the_standard_error_counts_the_random_length():
    block, x = build(RussianRoulette(1, start=0.5, probes=20)), points()
    estimates = [block.log_abs_det(x) for _ in range(300)]
    empirical = torch.stack([e.value for e in estimates]).std(0)
    reported = torch.stack([e.standard_error for e in estimates]).square().mean(0).sqrt()
    torch.testing.assert_close(reported, empirical, rtol=0.25, atol=0)


def test_the_gradient_is_unbiased_for_unequal_weights():
    block, x = build(None), points()
    weights = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)

    def gradient(log_det) -> torch.Tensor:
        block.log_det = log_det
        parts = torch.autograd.grad(weights @ block(x)[1], [*block.branch.weights])
        return torch.cat([p.flatten() for p in parts])

    expected = gradient(Exact())
    draws = torch.stack([gradient(RussianRoulette(1, start=0.5, probes=50)) for _ in range(150)])
    standard_error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() <= 4.5 * standard_error + 1e-9).all()


def test_a_tail_without_a_certain_variance_is_refused_with_the_number_that_would_do():
    block = build(RussianRoulette(terms=2, continuation=0.3), lipschitz=0.8)
    with pytest.raises(InfiniteVariance, match=r"continuation above 0\.6\d* or None"):
        block(points())
    block.log_det = RussianRoulette(terms=2, continuation=0.7)
    block(points())


def test_the_setting_of_residual_flows_is_there_to_compare_with():
    block, x = build(RESIDUAL_FLOWS, lipschitz=0.6), points()
    values = torch.stack([block.log_abs_det(x).value.detach() for _ in range(3000)])
    error = values.std(0) / math.sqrt(len(values))
    assert ((values.mean(0) - truth(block, x)).abs() <= 4.5 * error).all()


def test_the_length_is_that_of_the_stated_distribution():
    """Each draw of N shows in the number of products."""
    counts, x = [], points()
    block = build(None)
    g = block.branch.at()
    _, jacobian = g.linearize(x)

    class Counting:
        def known_traces(self, count):
            return 0

        def apply_transposed(self, w):
            counts[-1] += 1
            return jacobian.apply_transposed(w)

    generator = torch.Generator().manual_seed(1)
    estimator = RussianRoulette(terms=2, start=0.5, continuation=0.7, generator=generator)
    for _ in range(1500):
        counts.append(0)
        estimator.draw(Counting(), x, g.lipschitz)
    lengths = torch.tensor(counts) - 2
    for j in range(1, 6):
        expected = 0.5 * 0.7 ** (j - 1)
        error = math.sqrt(expected * (1 - expected) / len(lengths))
        assert abs(float((lengths >= j).double().mean()) - expected) <= 4.5 * error


def test_a_generator_governs_probes_and_lengths():
    x, generator = points(), torch.Generator().manual_seed(5)
    block = build(RussianRoulette(1, start=1.0, generator=generator))
    state = torch.get_rng_state()
    first = block.log_abs_det(x).value
    generator.manual_seed(5)
    assert torch.equal(block.log_abs_det(x).value, first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("terms", 0, "terms must be at least 1, got 0"),
        ("max_terms", 0, "max_terms must be at least 1, got 0"),
        ("probes", 0, "probes must be at least 1, got 0"),
        ("tolerance", 0.0, "tolerance must be positive, got 0.0"),
        ("start", 0.0, r"start must lie in \(0, 1\], got 0.0"),
        ("continuation", 1.0, r"continuation must lie in \(0, 1\), got 1.0"),
        ("heavy_tail", "hope", "heavy_tail must be 'refuse' or 'allow', got 'hope'"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        RussianRoulette(**{name: value})
