"""Russian roulette: no bias, a spread that is known, and the refusal of spreads that are not."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile

from iresnet_flows import (
    Exact,
    InvertibleResidualBlock,
    LipschitzMLP,
    PowerSeries,
    RussianRoulette,
)
from iresnet_flows.errors import InfiniteVariance
from iresnet_flows.maps.jacobians import MatrixJacobian
from iresnet_flows.maps.linear import Matrix

RESIDUAL_FLOWS = RussianRoulette(terms=2, continuation=0.5, heavy_tail="allow")


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


@pytest.mark.parametrize("terms", [1, 2, 5])
@pytest.mark.parametrize("continuation", [None, 0.9])
@pytest.mark.parametrize("hidden", [(8, 8), (8, 8, 8)])
def test_the_value_is_unbiased_however_few_terms_are_certain(terms, continuation, hidden):
    estimator = RussianRoulette(terms, continuation, probes=2000)
    block, x = build(estimator, hidden=hidden), points()
    value, standard_error, bias_bound = block.log_abs_det(x)
    assert ((value - truth(block, x)).abs() <= 4 * standard_error).all()
    assert (bias_bound == 0).all()


@pytest.mark.parametrize(
    ("estimator", "unbiased"),
    [(RussianRoulette(1, probes=2000), True), (PowerSeries(terms=3, probes=2000), False)],
    ids=["roulette", "series"],
)
def test_a_strong_contraction_needs_the_tail(estimator, unbiased):
    eye, slopes = torch.eye(4).double(), torch.ones(3, 1, 4).double()
    jacobian = MatrixJacobian((Matrix(0.7 * eye), Matrix(-eye)), (slopes,))
    draw = estimator.draw(jacobian, torch.zeros(3, 4).double(), torch.tensor(0.7).double())
    value, standard_error, _ = estimator.attach(draw, jacobian)
    within = (value - 4 * math.log(0.3)).abs() <= 4 * standard_error + 1e-9
    assert within.all() == unbiased


def test_the_standard_error_counts_the_random_length():
    block, x = build(RussianRoulette(1, probes=20)), points()
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
    draws = torch.stack([gradient(RussianRoulette(1, probes=50)) for _ in range(150)])
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


@pytest.mark.parametrize("continuation", [0.7, None])
def test_the_length_is_that_of_the_stated_distribution(continuation):
    """Each draw of N shows in the number of products."""
    vectors: list[list[torch.Tensor]] = []
    block, x = build(None), points()
    g = block.branch.requires_grad_(False).at()
    _, jacobian = g.linearize(x)

    class Counting:
        tensors = (x,)

        def known_traces(self, count):
            return 0

        def apply_transposed(self, w):
            vectors[-1].append(jacobian.apply_transposed(w))
            return vectors[-1][-1]

    generator = torch.Generator().manual_seed(1)
    estimator = RussianRoulette(2, continuation, generator=generator)
    expected, bound = [0.0] * 6, float(g.lipschitz)
    for _ in range(1500):
        vectors.append([])
        estimator.draw(Counting(), x, g.lipschitz)
        ratio = min(float(vectors[-1][1].norm() / vectors[-1][0].norm()), bound)
        for j in range(1, 6):
            seen = 0.99 * ratio ** (j - 1) + 0.01 * bound ** (j - 1)
            expected[j] += (seen if continuation is None else continuation ** (j - 1)) / 1500

    lengths = torch.tensor([len(v) for v in vectors]) - 2
    for j in range(1, 6):
        error = math.sqrt(max(expected[j] * (1 - expected[j]), 0) / len(lengths)) + 1e-6
        assert abs(float((lengths >= j).double().mean()) - expected[j]) <= 4.5 * error


def test_a_contraction_that_slows_down_is_found_by_the_rare_tail():
    """Two products that shrink a lot, and then hardly any: the spread is as large as it may be."""
    eigenvalues = torch.tensor([-0.01] * 3 + [-0.8]).double()
    first = torch.diag(eigenvalues)
    jacobian = MatrixJacobian(
        (Matrix(first), Matrix(torch.eye(4).double())), (torch.ones(3, 1, 4).double(),)
    )
    estimator = RussianRoulette(1, probes=20_000, generator=torch.Generator().manual_seed(2))
    draw = estimator.draw(jacobian, torch.zeros(3, 4).double(), torch.tensor(0.8).double())
    value, standard_error, _ = estimator.attach(draw, jacobian)
    truth = eigenvalues.log1p().sum()
    assert ((value - truth).abs() <= 4 * standard_error).all()
    assert (standard_error <= 0.1).all()


def test_a_generator_governs_probes_and_lengths():
    x, generator = points(), torch.Generator().manual_seed(5)
    block = build(RussianRoulette(1, generator=generator))
    state = torch.get_rng_state()
    first = block.log_abs_det(x).value
    generator.manual_seed(5)
    assert torch.equal(block.log_abs_det(x).value, first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("terms", 0, "terms must be at least 1, got 0"),
        ("probes", 0, "probes must be at least 1, got 0"),
        ("continuation", 1.0, r"continuation must lie in \(0, 1\), got 1.0"),
        ("heavy_tail", "hope", "heavy_tail must be 'refuse' or 'allow', got 'hope'"),
    ],
)
def test_numbers_out_of_range_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        RussianRoulette(**{name: value})


def test_a_step_that_is_nan_gives_the_value_nan():
    g = LipschitzMLP(20)
    with torch.no_grad():
        g.weights[0][0, 0] = math.nan
    assert InvertibleResidualBlock(g, RussianRoulette())(torch.randn(3, 20))[1].isnan().all()


@pytest.mark.parametrize("log_det", [RussianRoulette(), PowerSeries(terms=3)])
def test_samples_of_autocast_are_measured(log_det):
    block = InvertibleResidualBlock(LipschitzMLP(20, (30, 30)), log_det)
    x = torch.randn(3, 20).bfloat16()
    with torch.autocast("cpu", torch.bfloat16), block.frozen():
        logabsdet = block(x)[1]
    with block.frozen():
        expected = block(x.float())[1]
    torch.testing.assert_close(logabsdet.float(), expected, rtol=0.05, atol=0.02)
