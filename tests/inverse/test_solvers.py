"""Solvers: certified errors, failures that say what to do, and gradients of the exact inverse."""

from __future__ import annotations

import math
import re

import pytest
import torch
from cases import SOLVERS, hostile

from iresnet_flows import (
    Anderson,
    FixedPoint,
    InverseNotConverged,
    InvertibleResidualBlock,
    LipschitzMLP,
    Newton,
)
from iresnet_flows.errors import InverseNotConvergedWarning
from iresnet_flows.inverse import Equation
from iresnet_flows.maps.functions import FunctionMap

HARD = torch.tensor(0.97, dtype=torch.float64)

each_solver = pytest.mark.parametrize("kind", SOLVERS)


def build(lipschitz: float = 0.9, kind=FixedPoint, **solver) -> InvertibleResidualBlock:
    branch = hostile(LipschitzMLP(3, (8, 8), lipschitz=lipschitz).double())
    return InvertibleResidualBlock(branch, solver=kind(**solver))


def orthogonal(d: int) -> torch.Tensor:
    return torch.nn.init.orthogonal_(torch.empty(d, d, dtype=torch.float64))


@each_solver
@pytest.mark.parametrize("lipschitz", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("max_steps", [1, 2, 3, 10, 30, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_error_bound_of_a_truncated_solve_is_a_bound(kind, lipschitz, max_steps, dtype):
    block = build(lipschitz, kind, max_steps=max_steps)
    x = 3 * torch.randn(20, 3, dtype=torch.float64)
    y = block.transform(x)
    g = block.to(dtype).branch.at()
    truth = FixedPoint().solve(g.to(torch.float64), y.to(dtype).double(), g.lipschitz).value
    solution = block.solve(y.to(dtype))
    error = (solution.value.double() - truth).norm(dim=-1)
    assert (error <= solution.error_bound.double() * (1 + 1e-6) + 1e-9).all()
    assert (solution.steps <= max_steps).all()


@each_solver
@pytest.mark.parametrize("slope", [0.97, -0.97])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_hardest_contraction_reaches_its_tolerance(kind, slope, dtype, tolerance):
    y = torch.tensor([[1.0, -2.0], [0.0, 0.5], [1e-3, 0.0]], dtype=dtype)
    solver = kind(atol=tolerance, rtol=tolerance, max_steps=2000)
    solution = solver.solve(FunctionMap(lambda x: slope * x), y, HARD)
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


@each_solver
def test_rows_that_have_converged_move_no_more_and_leave_the_work(kind):
    y = torch.tensor([[0.0], [1.0], [0.0], [0.0], [2.0]], dtype=torch.float64)
    calls = []

    def g(x):
        calls.append(len(x))
        return -0.9 * x - 0.01 * x.sin()

    solution = kind().solve(FunctionMap(g), y, torch.tensor(0.91))
    assert solution.steps[[0, 2, 3]].tolist() == [1, 1, 1]
    assert (solution.steps[[1, 4]] > 2).all()
    assert (solution.value[[0, 2, 3]] == 0).all()
    evaluations = calls.count(5)
    assert calls == [5] * evaluations + [2] * calls.count(2) + [1] * calls.count(1)
    assert evaluations == (2 if kind is Newton else 1)

    block = build(kind=kind)
    y = torch.randn(6, 3, dtype=torch.float64)
    together = block.solve(y)
    for i in range(6):
        alone = block.solve(y[i : i + 1])
        torch.testing.assert_close(together.value[i : i + 1], alone.value, rtol=0, atol=1e-10)
        assert together.converged[i] == alone.converged[0]


def test_acceleration_takes_fewer_evaluations_on_a_smooth_branch():
    y = torch.randn(50, 3, dtype=torch.float64)
    steps = {kind: build(0.97, kind).solve(y).steps.double().mean() for kind in SOLVERS}
    assert steps[Anderson] < 0.6 * steps[FixedPoint]
    assert steps[Newton] < 0.4 * steps[FixedPoint]


@pytest.mark.parametrize("kind", [Anderson, Newton])
def test_where_acceleration_fails_the_safeguard_keeps_the_speed_of_banach(kind):
    """Rotations and kinks: no subspace helps, and tangents mislead."""
    inner, outer = orthogonal(12), orthogonal(12)

    def g(x):
        return 0.9 * (x @ inner).abs() @ outer

    y = torch.randn(30, 12, dtype=torch.float64)
    plain = FixedPoint().solve(FunctionMap(g), y, torch.tensor(0.9))
    solution = kind().solve(FunctionMap(g), y, torch.tensor(0.9))
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, plain.value, rtol=0, atol=1e-8)
    worst = 1 + math.log(1e-10 / plain.value.norm(dim=-1).max()) / math.log(0.9)
    assert solution.steps.max() <= 2.2 * worst


def test_single_precision_is_refined_to_what_it_can_hold():
    block = build(0.97).float()
    y = block.transform(torch.randn(200, 3))
    g = block.branch.at()
    truth = FixedPoint().solve(g.to(torch.float64), y.double(), g.lipschitz).value
    for kind in SOLVERS:
        block.solver = kind()
        solution = block.solve(y)
        assert solution.converged.all()
        assert (solution.value.double() - truth).abs().max() <= 1e-6
        block.solver = kind(precision=None)
        assert not block.solve(y).converged.all()


def test_rounding_ends_a_solve_that_asks_for_more_than_there_is_and_says_so():
    block = build(atol=0.0, rtol=1e-18)
    y = torch.randn(5, 3, dtype=torch.float64)
    with pytest.raises(InverseNotConverged, match="Rounding lets no further step gain: loosen"):
        block.invert(y)
    assert (block.solve(y).steps < 1000).all()


@each_solver
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_row_that_is_not_finite_raises_at_once_and_is_named(value, kind):
    block = build(kind=kind)
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
        ({"memory": 0}, "memory must be at least 1, got 0"),
        ({"on_failure": "ignore"}, "on_failure must be 'raise' or 'warn', got 'ignore'"),
        ({"precision": torch.int64}, "precision must be torch.float64, .* None, got torch.int64"),
        ({"precision": "float64"}, "precision must be .* or None, got 'float64'"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, message):
    with pytest.raises(ValueError, match=message):
        Anderson(**arguments)


@pytest.mark.parametrize("name", ["max_steps", "memory"])
def test_a_number_that_is_not_whole_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be a whole number, got None"):
        Anderson(**{name: None})


@pytest.mark.parametrize("name", ["atol", "rtol"])
def test_a_tolerance_that_is_no_number_is_refused(name):
    with pytest.raises(TypeError, match=f"{name} must be a number, got '1e-3'"):
        Anderson(**{name: "1e-3"})


@each_solver
def test_the_implicit_gradient_is_that_of_the_unrolled_iteration(kind):
    block = build(0.5, kind)
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


@each_solver
def test_the_jacobian_of_the_inverse_is_the_inverse_of_the_jacobian(kind):
    block = build(kind=kind)
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


@each_solver
def test_an_equation_of_a_matrix_has_the_gradients_of_the_closed_form(kind):
    matrix = 0.5 * torch.nn.init.orthogonal_(torch.empty(3, 3, dtype=torch.float64))
    matrix.requires_grad_()
    y = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    h = FunctionMap(lambda z, m: z @ m.mT, others=(matrix,))
    result = Equation(h, kind(), torch.tensor(0.5).double()).root(y)
    truth = torch.linalg.solve(torch.eye(3) + matrix, y.mT).mT
    torch.testing.assert_close(result, truth, rtol=1e-9, atol=1e-9)
    for one, other in zip(
        torch.autograd.grad(result.square().sum(), (y, matrix)),
        torch.autograd.grad(truth.square().sum(), (y, matrix)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("solver", [Anderson(), FixedPoint(), Newton()])
def test_a_context_of_one_row_serves_rows_that_leave_at_different_times(solver):
    branch = LipschitzMLP(2, (8, 8), 0.97, context_features=3)
    with torch.no_grad():
        branch.weights[-1].mul_(100)
    block = InvertibleResidualBlock(branch, solver=solver)
    y = torch.randn(50, 2) * torch.logspace(-3, 3, 50).unsqueeze(1)
    context = torch.randn(1, 3)
    solution = block.solve(y, context)
    assert solution.converged.all()
    torch.testing.assert_close(solution.value, block.invert(y, context.expand(50, 3)))


def test_an_absolute_tolerance_alone_leaves_the_gradient_its_own():
    block = InvertibleResidualBlock(LipschitzMLP(2), solver=Anderson(atol=1e-9, rtol=0.0))
    y = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block.double().invert, y)


@each_solver
def test_members_of_an_ensemble_share_their_right_hand_sides(kind):
    # Some are done at once, and more of them than there are rows.
    scales = torch.tensor([0.0, 0.0, 0.0, 0.5], dtype=torch.float64)
    y = torch.ones(1, 2, dtype=torch.float64)

    def solve(scale, y):
        return Equation(FunctionMap(turned, (), (scale,)), kind(), HARD).root(y)

    together = torch.func.vmap(solve, (0, None))(scales, y)
    assert torch.equal(together, torch.func.vmap(solve)(scales, y.expand(4, 1, 2)))
    torch.testing.assert_close(
        together + turned(together, scales[:, None, None]), y.expand(4, 1, 2)
    )


def turned(x, scale):
    return scale * x.flip(-1).sin()


@each_solver
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_solved_to_its_own_tolerance(kind, dtype):
    block = InvertibleResidualBlock(LipschitzMLP(3, (8, 8)), solver=kind()).to(dtype)
    y = torch.randn(5, 3, dtype=dtype)
    solution = block.solve(y)
    assert solution.value.dtype == dtype
    assert solution.converged.all()


@each_solver
def test_a_solution_is_no_alias_of_what_was_given(kind):
    block = build(kind=kind)
    with torch.no_grad():
        block.branch.weights[-1].zero_()
        block.branch.biases[-1].zero_()
        y = torch.randn(4, 3, dtype=torch.float64)
        before = y.clone()
        block.invert(y).add_(1)
    assert torch.equal(y, before)
