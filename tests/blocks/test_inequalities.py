"""The theorems of the papers, as inequalities at blocks that were trained to break them."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from attacks import BRANCHES, near_and_far, norms, squeezed, stretched
from cases import SOLVERS

from iresnet_flows import CayleyBlock, Exact, FixedPoint, InvertibleResidualBlock, PowerSeries

pytestmark = pytest.mark.numerics

NAMES = (
    "mlp, csin",
    "mlp, elu",
    "mlp, one hidden layer, 0.99",
    "mlp, three hidden layers",
    "mlp, context",
    "dense, csin, 0.99",
    "dense, context",
    "convolutions, context",
)

each_branch = pytest.mark.parametrize("name", NAMES)
ROUNDING = 1e-11


def build(name, kind=InvertibleResidualBlock, log_det=None, solver=None, dtype=torch.float64):
    """A block, points from near to far, their context, and the bound of the branch."""
    g, (x, context) = stretched(name, dtype), places(name, dtype)
    return kind(g, log_det, solver), x, context, float(g.lipschitz_bound())


def lowest(name):
    """The same for the branch whose log-det is as low as was found, at these points."""
    g, x, context = squeezed(name)
    return InvertibleResidualBlock(g, Exact()), x, context, float(g.lipschitz_bound())


@cache
def places(name, dtype):
    return near_and_far(stretched(name, dtype), BRANCHES[name][1])


def lengths(x):
    return x.flatten(1).norm(dim=1)


def neighbours(x):
    """Another point for each, near or far."""
    sizes = 10.0 ** torch.linspace(-3, 1, len(x), dtype=x.dtype)
    return x + sizes.reshape(-1, *[1] * (x.dim() - 1)) * torch.randn_like(x)


@each_branch
def test_the_block_and_its_inverse_are_as_bi_lipschitz_as_lemma_2_says(name):
    block, x, context, bound = build(name)
    z = neighbours(x)
    before = lengths(x - z)
    after = lengths(block.transform(x, context) - block.transform(z, context))
    assert (after <= (1 + bound) * before * (1 + ROUNDING)).all()
    assert (after >= (1 - bound) * before * (1 - ROUNDING)).all()

    back = lengths(block.invert(x, context) - block.invert(z, context))
    solved = 2e-10 * (1 + lengths(x) + lengths(z)) / (1 - bound)
    assert (back <= before / (1 - bound) + solved).all()
    assert (back >= before / (1 + bound) - solved).all()


@each_branch
def test_the_singular_values_of_the_jacobian_are_those_that_lemma_2_allows(name):
    block, x, context, bound = build(name)
    moved = torch.func.jacrev(lambda t: block.transform(t, context).sum(0).flatten())(x)
    jacobian = moved.transpose(0, 1).flatten(2)
    values = torch.linalg.svdvals(jacobian)
    assert values.max() <= (1 + bound) * (1 + ROUNDING)
    assert values.min() >= (1 - bound) * (1 - ROUNDING)
    torch.testing.assert_close(
        torch.linalg.matrix_norm(jacobian - torch.eye(jacobian.shape[-1]).double(), 2),
        norms(block.branch, x, context),
    )


@each_branch
def test_the_log_det_lies_between_the_bounds_of_lemma_7_and_comes_near(name):
    for block, x, context, bound in (build(name, log_det=Exact()), lowest(name)):
        d, logabsdet = x[0].numel(), block(x, context)[1]
        assert (logabsdet <= d * math.log1p(bound) + ROUNDING).all()
        assert (logabsdet >= d * math.log1p(-bound) - ROUNDING).all()
    assert logabsdet.min() < 0.5 * d * math.log1p(-bound)


@each_branch
@pytest.mark.parametrize("terms", [1, 2, 5, 12])
def test_a_truncated_series_is_as_near_as_theorem_3_says(name, terms):
    for block, x, context, bound in (build(name, log_det=Exact()), lowest(name)):
        truth = block(x, context)[1]
        jacobian = block.branch.at(context).linearize(x)[1].dense()
        powers = [jacobian]
        while len(powers) < terms:
            powers.append(powers[-1] @ jacobian)
        traces = torch.stack([p.diagonal(dim1=1, dim2=2).sum(1) for p in powers])
        k = torch.arange(1, terms + 1, dtype=torch.float64)
        error = ((-((-1) ** k) / k) @ traces - truth).abs()
        limit = -x[0].numel() * (math.log1p(-bound) + float((bound**k / k).sum()))
        assert (error <= limit + ROUNDING).all()
    assert error.max() > 0.1 * limit


@each_branch
@pytest.mark.parametrize("terms", [1, 3, 8])
@pytest.mark.parametrize("kind", [InvertibleResidualBlock, CayleyBlock])
def test_what_a_cut_chain_leaves_out_is_below_its_last_vector_over_one_minus_l(name, terms, kind):
    """Of the value, that is certified; of the weights of the gradient, it is the analogue."""
    block, x, context, bound = build(name, kind)
    g = block.branch.at(context)
    _, jacobian = g.linearize(x)

    def draw(count):
        generator = torch.Generator().manual_seed(5)
        series = PowerSeries(terms=count, probes=2)
        return series.draw(jacobian, x, g.lipschitz, generator, block.function)

    short, long = draw(terms), draw(math.ceil(-30 / math.log(bound)))
    assert ((short.totals - long.totals).mean(0).abs() <= short.bias_bound + ROUNDING).all()

    w = short.probes
    for _ in range(terms):
        w = jacobian.apply_transposed(w)
    factor = max(abs(block.function.factor(k)) for k in (1, 2))
    left_out = (short.weights - long.weights).flatten(2).norm(dim=2)
    assert (left_out <= factor * w.flatten(2).norm(dim=2) / (1 - bound) + 1e-9).all()


@each_branch
@pytest.mark.parametrize("kind", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_of_a_solve_is_below_its_bound_at_every_step(name, kind, dtype):
    block, y, context, bound = build(name, dtype=dtype)
    exact = block.branch.at(context).to(torch.float64)
    lipschitz = block.branch.lipschitz_bound()
    truth = FixedPoint(0.0, 0.0).solve(exact, y.double(), lipschitz).value
    rounding = 1e-14 * (1 + lengths(truth) + lengths(y.double())) / (1 - bound)
    for max_steps in (1, 2, 4, 9, 10_000):
        block.solver = kind(max_steps=max_steps)
        solution = block.solve(y, context)
        error = lengths(solution.value.double() - truth)
        limit = solution.error_bound.double() * (1 + 2 * torch.finfo(dtype).eps)
        assert (error <= limit + rounding).all()
        assert (solution.steps <= max_steps).all()
    assert solution.converged.all()


@each_branch
def test_cayley_stretches_and_shrinks_by_at_most_what_is_stated(name):
    block, x, context, bound = build(name, CayleyBlock, Exact())
    z, most = neighbours(x), (1 + bound) / (1 - bound)
    before, solved = lengths(x - z), 1e-9 * (1 + lengths(x)) * 10 / (1 - bound)
    for side in (block.transform, block.invert):
        moved = side(x, context) - side(z, context)
        assert (lengths(moved) <= most * before + solved).all()
        assert (lengths(moved) >= before / most - solved).all()
        ascent = (moved * (x - z)).flatten(1).sum(1)
        assert (ascent >= before.square() / most - solved * before).all()
    logabsdet = block(x, context)[1]
    assert (logabsdet.abs() <= x[0].numel() * math.log(most) + ROUNDING).all()
