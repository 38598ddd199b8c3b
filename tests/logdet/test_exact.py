"""The exact log-det, at every cut, and the Jacobians that it is made from."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile
from jacobians import dense

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.logdet.exact import logdet_plus_identity

WIDTHS = [
    (2, (4, 6)),
    (5, (4, 8)),
    (5, (8, 4)),
    (5, (12, 2, 14)),
    (5, (12, 14, 6)),
    (4, (6,)),
    (3, (8,)),
    (1, (4,)),
]

each_chain = pytest.mark.parametrize(("features", "hidden"), WIDTHS)
each_copy = pytest.mark.parametrize("activation", ["tanh", "csin"])


def build(features: int, hidden: tuple[int, ...], activation: str, **kwargs):
    g = LipschitzMLP(features, hidden, activation=activation, **kwargs).double()
    return InvertibleResidualBlock(hostile(g), Exact())


@each_chain
@each_copy
def test_the_log_det_is_that_of_the_dense_jacobian(features, hidden, activation):
    block = build(features, hidden, activation)
    x = torch.randn(4, features, dtype=torch.float64)
    truth = torch.linalg.slogdet(dense(block.transform, x)).logabsdet
    value, standard_error, bias_bound = block.log_abs_det(x)
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=1e-10)
    assert torch.equal(standard_error, torch.zeros(4).double())
    assert torch.equal(bias_bound, torch.zeros(4).double())


@each_chain
@each_copy
def test_every_view_of_the_jacobian_agrees_with_the_dense_one(features, hidden, activation):
    g = build(features, hidden, activation).branch
    x = torch.randn(4, features, dtype=torch.float64)
    value, jacobian = g.at().linearize(x)
    truth = dense(g, x)
    v = torch.randn(3, 4, features, dtype=torch.float64)

    torch.testing.assert_close(value, g(x))
    torch.testing.assert_close(jacobian.apply(v), torch.einsum("bij,pbj->pbi", truth, v))
    torch.testing.assert_close(
        jacobian.apply_transposed(v), torch.einsum("bji,pbj->pbi", truth, v)
    )

    trace = truth.diagonal(dim1=-2, dim2=-1).sum(-1)
    core = jacobian.core().squeeze(1)
    assert core.shape == (4, jacobian.rank(), jacobian.rank())
    copies = g.activations[0].copies
    assert jacobian.rank() == min(features, *(h // copies for h in hidden))
    torch.testing.assert_close(core.diagonal(dim1=-2, dim2=-1).sum(-1), trace)

    known = jacobian.traces(2)
    assert len(known) == jacobian.known_traces(2) == {1: 2, 2: 1}.get(len(hidden), 0)
    powers = (truth, truth @ truth)
    for result, power in zip(known, powers, strict=False):
        torch.testing.assert_close(result, power.diagonal(dim1=-2, dim2=-1).sum(-1))


@pytest.mark.parametrize("lipschitz", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("step", [0.5, 20.0])
def test_the_log_det_lies_within_the_bounds_of_the_lipschitz_constant(lipschitz, step):
    block = build(3, (6, 6), "csin", lipschitz=lipschitz)
    hostile(block, step)
    logabsdet = block.log_abs_det(10 * torch.randn(500, 3, dtype=torch.float64)).value
    assert (logabsdet >= 3 * math.log(1 - lipschitz)).all()
    assert (logabsdet <= 3 * math.log(1 + lipschitz)).all()


def test_the_lower_bound_is_reached():
    block = build(1, (1,), "tanh", lipschitz=0.99)
    with torch.no_grad():
        block.branch.weights[0].fill_(5.0)
        block.branch.weights[1].fill_(-5.0)
        block.branch.biases[0].zero_()
    logabsdet = block.log_abs_det(torch.zeros(1, 1, dtype=torch.float64)).value
    assert logabsdet.item() == pytest.approx(math.log(0.01), rel=1e-6)


@pytest.mark.parametrize("rank", [1, 2, 3, 6])
def test_the_closed_forms_are_the_general_one_with_its_gradient(rank):
    m = torch.randn(5, rank, rank, dtype=torch.float64)
    m = (0.9 * m / torch.linalg.matrix_norm(m, 2)[:, None, None]).requires_grad_()
    truth = torch.linalg.slogdet(torch.eye(rank) + m).logabsdet
    result = logdet_plus_identity(m)
    torch.testing.assert_close(result, truth)
    weights = torch.tensor([1.0, 0.0, -2.0, 3.0, 0.5], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(weights @ result, m)
    (expected,) = torch.autograd.grad(weights @ truth, m)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_small_jacobian_loses_no_digits(rank):
    m = 1e-9 * torch.eye(rank)[None]
    assert float(logdet_plus_identity(m)) == pytest.approx(rank * 1e-9, rel=1e-6)


def test_no_random_number_is_drawn():
    block = build(3, (6, 6), "csin")
    state = torch.get_rng_state()
    block(torch.randn(0, 3, dtype=torch.float64))
    block.log_abs_det(torch.ones(4, 3, dtype=torch.float64))
    assert torch.equal(torch.get_rng_state(), state)
