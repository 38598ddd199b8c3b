"""Solvers: certified errors, failures that say what to do, and gradients of the exact inverse."""

from __future__ import annotations

import math
import re

import pytest
import torch
from cases import hostile

from iresnet_flows import FixedPoint, InverseNotConverged, InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import InverseNotConvergedWarning
from iresnet_flows.functions import FunctionMap
from iresnet_flows.inverse import Equation

HARD = torch.tensor(0.97, dtype=torch.float64)


def build(lipschitz: float = 0.9, **solver) -> InvertibleResidualBlock:
    branch = hostile(LipschitzMLP(3, (8, 8), lipschitz=lipschitz).double())
    return InvertibleResidualBlock(branch, solver=FixedPoint(**solver))


@pytest.mark.parametrize("lipschitz", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("max_steps", [1, 2, 3, 10, 30, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_bound_of_a_truncated_solve_is_a_bound(lipschitz, max_steps, dtype):
    block = build(lipschitz, max_steps=max_steps)
    x = 3 * torch.randn(20, 3, dtype=torch.float64)
    y = block.transform(x)
    g = block.to(dtype).branch.at()
    truth = FixedPoint().solve(g.to(torch.float64), y.to(dtype).double(), g.lipschitz).value
    solution = block.solve(y.to(dtype))
    error = (solution.value.double() - truth).norm(dim=-1)
    assert (error <= solution.error_bound.double() * (1 + 1e-6) + 1e-9).all()
    assert (solution.steps <= max_steps).all()


@pytest.mark.parametrize("slope", [0.97, -0.97])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_the_hardest_contraction_reaches_its_tolerance(slope, dtype, tolerance):
    y = torch.tensor([[1.0, -2.0], [0.0, 0.5], [1e-3, 0.0]], dtype=dtype)
    solution = FixedPoint(max_steps=2000).solve(FunctionMap(lambda x: slope * x), y, HARD)
    assert solution.converged.all()
    assert solution.value.dtype == solution.error_bound.dtype == dtype
    truth = y.double() / (1 + slope)
    error = (solution.value.double() - truth).norm(dim=-1)
    assert (error <= tolerance * (1 + truth.norm(dim=-1))).all()
    rounding = 1e-15 * truth.norm(dim=-1) / 0.03
    assert (error <= solution.error_bound + rounding).all()


def test_the_bound_of_the_error_is_reached_by_a_linear_map():
    y = torch.ones(1, 1, dtype=torch.float64)
    solution = FixedPoint(max_steps=5).solve(FunctionMap(lambda x: -0.97 * x), y, HARD)
    error = (solution.value - y / 0.03).norm(dim=-1)
    torch.testing.assert_close(solution.error_bound, error)
    assert not solution.converged.any()
    assert solution.steps.tolist() == [5]


def test_a_row_that_has_converged_moves_no_more():
    y = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    seen = []

    def g(x):
        seen.append(x.clone())
        return -0.9 * x

    solution = FixedPoint().solve(FunctionMap(g), y, torch.tensor(0.9))
    assert solution.steps[0] == 1
    assert solution.steps[1] > 100
    assert all(x[0] == seen[0][0] for x in seen)

    block = build()
    y = torch.randn(6, 3, dtype=torch.float64)
    together = block.solve(y)
    for i in range(6):
        alone = block.solve(y[i : i + 1])
        torch.testing.assert_close(together.value[i : i + 1], alone.value, rtol=0, atol=1e-14)
        assert together.steps[i] == alone.steps[0]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_raises_at_once_and_is_named(value):
    block = build()
    y = torch.randn(5, 3, dtype=torch.float64)
    y[3, 1] = value
    with pytest.raises(InverseNotConverged, match=r"1 of 5 samples.*sample 3.*check the input"):
        block.inverse(y)
    solution = block.solve(y)
    assert solution.steps[3] == 1
    assert solution.converged.tolist() == [True, True, True, False, True]


def test_the_failure_says_how_far_it_got_and_what_to_change():
    block = build(max_steps=3)
    y = torch.randn(5, 3, dtype=torch.float64)
    error = block.solve(y).error_bound.max()
    message = (
        f"after 3 steps with 5 of 5 samples above tolerance (largest error bound {error:.1e}, "
        "atol 1.0e-10, rtol 1.0e-10). Each step multiplies the error by at most 0.9: raise "
        "max_steps, loosen atol or rtol, or build the branch with a smaller lipschitz."
    )
    for function in (block.inverse, block.invert):
        with pytest.raises(InverseNotConverged, match=re.escape(message)):
            function(y)


def test_a_solver_that_was_told_to_warn_warns_and_returns():
    block = build(max_steps=3, on_failure="warn")
    y = torch.randn(5, 3, dtype=torch.float64)
    with pytest.warns(InverseNotConvergedWarning, match="after 3 steps with 5 of 5 samples"):
        x = block.invert(y)
    assert torch.equal(x, block.solve(y).value)


def test_solve_reports_and_neither_raises_nor_warns():
    solution = build(max_steps=2).solve(torch.randn(4, 3, dtype=torch.float64))
    assert not solution.converged.any()
    assert (solution.error_bound > 1e-10).all()


def test_looser_tolerances_take_fewer_steps_and_are_met():
    y = torch.randn(5, 3, dtype=torch.float64)
    tight, loose = build().solve(y), build(atol=1e-3, rtol=0.0).solve(y)
    assert (loose.steps < tight.steps).all()
    assert loose.converged.all()
    assert (loose.error_bound <= 1e-3).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"atol": -1.0}, "atol must be at least 0, got -1.0"),
        ({"rtol": math.nan}, "rtol must be at least 0, got nan"),
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"on_failure": "ignore"}, "on_failure must be 'raise' or 'warn', got 'ignore'"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, message):
    with pytest.raises(ValueError, match=message):
        FixedPoint(**arguments)


def test_the_implicit_gradient_is_that_of_the_unrolled_iteration():
    block = build(lipschitz=0.5)
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([[1.0], [-2.0], [0.0], [0.5]], dtype=torch.float64)
    inputs = [y, *block.parameters()]

    x = y
    for _ in range(60):
        x = y - block.branch(x)
    unrolled = torch.autograd.grad((weights * x.sin()).sum(), inputs)
    implicit = torch.autograd.grad((weights * block.invert(y).sin()).sum(), inputs)
    for result, expected in zip(implicit, unrolled, strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-8, atol=1e-9)


def test_the_jacobian_of_the_inverse_is_the_inverse_of_the_jacobian():
    block = build()
    y = torch.randn(1, 3, dtype=torch.float64)
    x = block.invert(y)
    there = torch.autograd.functional.jacobian(block.transform, x)[0, :, 0]
    back = torch.autograd.functional.jacobian(block.invert, y)[0, :, 0]
    torch.testing.assert_close(back, torch.linalg.inv(there), rtol=1e-8, atol=1e-8)


def test_the_gradient_of_a_tiny_loss_is_as_exact_as_that_of_a_large_one():
    block = build()
    y = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    x = block.invert(y)
    (large,) = torch.autograd.grad(x.sum(), y, retain_graph=True)
    (tiny,) = torch.autograd.grad(1e-12 * x.sum(), y)
    torch.testing.assert_close(1e12 * tiny, large, rtol=1e-8, atol=1e-9)


def test_a_failed_solve_of_the_gradient_raises_too():
    block = build(max_steps=2, on_failure="raise")
    y = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    solution = block.solve(y)
    with pytest.raises(InverseNotConverged, match="after 2 steps"):
        solution.value.sum().backward()


def test_an_equation_of_a_matrix_has_the_gradients_of_the_closed_form():
    matrix = 0.5 * torch.nn.init.orthogonal_(torch.empty(3, 3, dtype=torch.float64))
    matrix.requires_grad_()
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    equation = Equation(
        lambda m: FunctionMap(lambda z, m: z @ m.mT, others=(m,)),
        FixedPoint(),
        torch.tensor(0.5).double(),
    )

    result = equation.root(y, (matrix,))
    truth = torch.linalg.solve(torch.eye(3) + matrix, y.mT).mT
    torch.testing.assert_close(result, truth, rtol=1e-9, atol=1e-9)
    for one, other in zip(
        torch.autograd.grad(result.square().sum(), (y, matrix)),
        torch.autograd.grad(truth.square().sum(), (y, matrix)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)
