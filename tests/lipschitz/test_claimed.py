"""Modules of the user's: claims that hold pass every test, and those that do not are refused."""

from __future__ import annotations

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from cases import AllSigns, Bounded, hostile
from torch import nn

from iresnet_flows import (
    BrokenLipschitzClaim,
    ClaimedBranch,
    Exact,
    FixedPoint,
    InvertibleResidualBlock,
    PowerSeries,
)


class Matrix(nn.Module):
    """A linear map, whose constant is known."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x):
        return (x.flatten(1) @ self.matrix.mT).reshape(x.shape)


class Listed(nn.Module):
    """A module that finds its own parameters in attributes beside torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(0.1 * torch.randn(3, 3, dtype=torch.float64))
        self.second = nn.Parameter(0.1 * torch.randn(3, 3, dtype=torch.float64))
        self.by_name = {"matrices": [self.first, (self.second,)]}

    def forward(self, x):
        first, (second,) = self.by_name["matrices"]
        return ((x @ first).tanh() @ second).tanh()


class Shifted(nn.Module):
    """A module that the context moves far, and x little."""

    def forward(self, x, context):
        return 0.5 * x.sin() + 100 * context


class Random(nn.Module):
    def forward(self, x):
        return torch.randn_like(x)


def orthogonal(d: int, scale: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return scale * nn.init.orthogonal_(torch.empty(d, d, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=8), PowerSeries(max_terms=200)])
def test_a_claim_that_is_reached_everywhere_passes(dtype, log_det):
    branch = ClaimedBranch(Matrix(orthogonal(5, 0.8, dtype)), 0.8)
    block = InvertibleResidualBlock(branch, log_det)
    for scale in (1e-30, 1e-3, 1.0, 1e6):
        x = scale * torch.randn(20, 5, dtype=dtype)
        y, _ = block(x)
        error = (block.invert(y) - x).norm(dim=-1)
        assert (error <= 1e-5 + 1e-5 * x.norm(dim=-1)).all()
    assert branch.lipschitz_bound() == torch.tensor(0.8, dtype=torch.float64)


@pytest.mark.parametrize("event", [(4,), (2, 2), (1, 2, 2)])
@pytest.mark.parametrize("excess", [1.001, 1.3])
def test_neighbours_that_move_apart_are_found_in_every_evaluation(event, excess):
    branch = ClaimedBranch(Matrix(orthogonal(4, 0.7 * excess)), 0.7)
    block, x = InvertibleResidualBlock(branch), torch.randn(6, *event, dtype=torch.float64)
    for call in (branch, block, block.transform, block.invert, block.inverse):
        with pytest.raises(BrokenLipschitzClaim, match=r"by 0\.\d+, .*larger constant"):
            call(x)


@pytest.mark.parametrize("log_det", [PowerSeries(), PowerSeries(terms=3), AllSigns(terms=2)])
def test_products_find_what_a_single_sample_cannot_show(log_det):
    branch = ClaimedBranch(Matrix(orthogonal(4, 0.9)), 0.8)
    x = torch.randn(1, 4, dtype=torch.float64)
    branch(x)
    with pytest.raises(
        BrokenLipschitzClaim, match="the length of a vector at sample 0 of a batch"
    ):
        InvertibleResidualBlock(branch, log_det)(x)


def test_an_exact_log_det_finds_a_direction_that_no_row_shows():
    branch = ClaimedBranch(Matrix(torch.full((16, 16), 0.1, dtype=torch.float64)), 0.9)
    block = InvertibleResidualBlock(branch, Exact())
    with pytest.raises(BrokenLipschitzClaim, match=r"multiplies the length .* by 1\.6,"):
        block(torch.zeros(1, 16, dtype=torch.float64))


def test_the_message_says_what_was_claimed_what_was_found_and_what_to_do():
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 3.0]])
    module = Matrix(torch.diag(torch.tensor([0.5, 2.0])))
    with pytest.raises(
        BrokenLipschitzClaim,
        match=r"claimed to have the Lipschitz constant 0\.9, but it multiplies the distance of "
        r"samples 1 and 2 of a batch by (2|1\.999\d*), .* claim a larger constant, below 1, or "
        r"bound the module's weights",
    ):
        ClaimedBranch(module, 0.9)(x)


def test_a_claim_that_no_longer_holds_after_training_is_found():
    branch = ClaimedBranch(nn.Sequential(nn.Linear(3, 3), nn.Tanh()), 0.9).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    optimizer = torch.optim.Adam(branch.parameters(), lr=0.1)

    def train():
        for _ in range(200):
            optimizer.zero_grad()
            (branch(x) - 100 * x).square().mean().backward()
            optimizer.step()

    with pytest.raises(BrokenLipschitzClaim):
        train()


def test_samples_with_different_contexts_are_not_compared_and_those_with_the_same_are():
    branch = ClaimedBranch(Shifted(), 0.5, context_features=2)
    x, context = torch.randn(4, 2), torch.randn(4, 2)
    branch(x, context)
    branch(x, context[0])
    branch.lipschitz = 0.1
    branch(x, context)
    for same in (context[0], context[:1].expand(4, 2), context[:1]):
        with pytest.raises(BrokenLipschitzClaim):
            branch(x, same)


def test_a_module_that_draws_random_numbers_is_found():
    x = torch.zeros(3, 2)
    with pytest.raises(BrokenLipschitzClaim, match="must draw no random numbers"):
        ClaimedBranch(Random(), 0.9)(x)


def test_claims_are_tested_where_vmap_hides_the_values():
    branch = ClaimedBranch(Matrix(orthogonal(2, 1.2)), 0.9)
    x = torch.randn(3, 4, 2, dtype=torch.float64)
    with pytest.raises(BrokenLipschitzClaim):
        torch.func.vmap(branch)(x)
    with pytest.raises(BrokenLipschitzClaim):
        torch.func.grad(lambda t: branch(t).sum())(x[0])


def test_what_is_not_finite_is_no_broken_claim():
    x = torch.tensor([[math.inf], [math.nan], [1.0], [1.0]])
    assert not ClaimedBranch(nn.Identity(), 0.999)(x[:2]).isfinite().any()


def test_autocast_rounds_more_and_breaks_no_claim():
    block = InvertibleResidualBlock(
        ClaimedBranch(Matrix(orthogonal(5, 0.8, torch.float32)), 0.8), PowerSeries(terms=6)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(torch.randn(50, 5))


def test_the_module_keeps_its_state_and_copies_are_the_same():
    branch = hostile(ClaimedBranch(Bounded(3), 0.8))
    x = torch.randn(4, 3)
    before = {name: tensor.clone() for name, tensor in branch.state_dict().items()}
    expected = branch(x)
    for other in (copy.deepcopy(branch), pickle.loads(pickle.dumps(branch))):
        assert torch.equal(other(x), expected)
    for name, tensor in branch.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_float32_module_is_solved_in_float64():
    block = InvertibleResidualBlock(ClaimedBranch(hostile(Bounded(3)), 0.8))
    x = torch.randn(4, 3)
    solution = block.solve(block.transform(x))
    assert solution.value.dtype == torch.float32
    assert (solution.error_bound < 1e-5).all()
    torch.testing.assert_close(solution.value, x, rtol=1e-5, atol=1e-5)


def test_a_module_with_shared_parameters_has_the_gradient_of_both_uses():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    module = nn.Sequential(first, nn.Tanh(), second).double()
    with torch.no_grad():
        first.weight.copy_(orthogonal(2, 0.8))
    block = InvertibleResidualBlock(ClaimedBranch(module, 0.7), Exact())
    x = torch.randn(3, 2, dtype=torch.float64)
    y, logabsdet = block(x)
    (result,) = torch.autograd.grad(y.sum() + logabsdet.sum(), first.weight)
    jacobian = torch.autograd.functional.jacobian(
        lambda t: module(t).sum(0), x, create_graph=True
    ).transpose(0, 1)
    truth = torch.linalg.slogdet(torch.eye(2) + jacobian).logabsdet
    (expected,) = torch.autograd.grad((x + module(x)).sum() + truth.sum(), first.weight)
    torch.testing.assert_close(result, expected)


class Roundabout(nn.Module):
    """A module that finds its parts through what it has kept of itself."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, bias=False)
        self.calls = []
        self.way = {
            "method": self.inner,
            "partial": partial(self.scaled, factor=0.9),
            "function": lambda x: 0.9 * self.linear(x).sin(),
            "default": lambda x, linear=self.linear: 0.9 * linear(x).sin(),
            "recursion": self.recursion(),
            "list": [self.linear],
            "tuple in a dict": {"parts": (self.linear,)},
        }[way]

    def inner(self, x):
        return self.scaled(x, 0.9)

    def recursion(self):
        def again(x, left=1):
            return again(x, left - 1) if left else 0.9 * self.linear(x).sin()

        return again

    def scaled(self, x, factor):
        return factor * self.linear(x).sin()

    def forward(self, x):
        self.calls.append(len(x))
        match self.way:
            case [linear] | {"parts": (linear,)}:
                return 0.9 * linear(x).sin()
        return self.way(x)


@pytest.mark.parametrize(
    "way",
    ["method", "partial", "function", "default", "recursion", "list", "tuple in a dict"],
)
def test_a_module_that_refers_to_itself_has_its_gradients(way):
    module = Roundabout(way).double()
    with torch.no_grad():
        module.linear.weight.copy_(orthogonal(2, 0.8))
    block = InvertibleResidualBlock(ClaimedBranch(module, 0.73), Exact())
    x = torch.randn(4, 2, dtype=torch.float64)

    def truth(x):
        jacobian = torch.autograd.functional.jacobian(
            lambda t: module(t).sum(0), x, create_graph=True
        ).transpose(0, 1)
        return torch.linalg.slogdet(torch.eye(2) + jacobian).logabsdet.sum()

    def gradient(value):
        return torch.autograd.grad(value, module.linear.weight)[0]

    torch.testing.assert_close(gradient(block(x)[1].sum()), gradient(truth(x)))
    y, shift = block.transform(x).detach(), 1e-6
    found = gradient(block.invert(y).sum())
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        moved = []
        for sign in (1, -1):
            with torch.no_grad():
                module.linear.weight[i, j] += sign * shift
                moved.append(block.invert(y).sum())
                module.linear.weight[i, j] -= sign * shift
        assert float(found[i, j]) == pytest.approx(
            float(moved[0] - moved[1]) / (2 * shift), abs=1e-4
        )
    assert module.calls  # what the module notes is kept
    block.float().invert(y.float())


def test_a_module_without_parameters_is_inverted():
    class Fixed(nn.Module):
        def forward(self, x):
            return 0.5 * x.sin()

    block = InvertibleResidualBlock(ClaimedBranch(Fixed(), 0.5), Exact(), memory="low")
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    y, logabsdet = block(x)
    torch.testing.assert_close(block.invert(y), x, rtol=0, atol=1e-8)
    torch.testing.assert_close(logabsdet, (1 + 0.5 * x.cos()).log().sum(1))
    logabsdet.sum().backward()
    torch.testing.assert_close(x.grad, -0.5 * x.sin() / (1 + 0.5 * x.cos()))


@pytest.mark.parametrize("training", [True, False])
def test_modules_that_normalize_their_weights_themselves_work(training):
    def normed(m, n):
        linear = nn.Linear(m, n, dtype=torch.float64)
        return nn.utils.parametrizations.spectral_norm(linear, n_power_iterations=50)

    class Smaller(nn.Module):
        def forward(self, x):
            return 0.8 * x

    branch = ClaimedBranch(nn.Sequential(normed(3, 8), nn.ELU(), normed(8, 3), Smaller()), 0.81)
    block = InvertibleResidualBlock(branch, Exact()).train(training)
    x = torch.randn(5, 3, dtype=torch.float64)
    y, logabsdet = block(x)
    (logabsdet.sum() + y.square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in block.parameters())
    jacobian = torch.autograd.functional.jacobian(lambda t: block.transform(t).sum(0), x)
    truth = torch.linalg.slogdet(jacobian.transpose(0, 1)).logabsdet
    torch.testing.assert_close(logabsdet, truth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(block.invert(y), x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.sin, 0.5), TypeError, "module must be a torch.nn.Module, got builtin"),
        ((nn.Tanh, 0.5), TypeError, "module must be a torch.nn.Module, got the class Tanh"),
        ((nn.Tanh(), 1.0), ValueError, r"lipschitz must lie in \(0, 1\), got 1.0"),
        ((nn.Tanh(), 0.5, 0), ValueError, "context_features must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, error, message):
    with pytest.raises(error, match=message):
        ClaimedBranch(*arguments)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0]], TypeError, "x must be a tensor, got list"),
        (torch.ones(3), ValueError, r"x must have the shape \(B, \*event\), got \(3,\)"),
        (torch.ones(4, 0), ValueError, r"x must have the shape \(B, \*event\), got \(4, 0\)"),
        (torch.ones(4, 3).double(), TypeError, r"x.to\(torch.float32\)"),
        (torch.ones(4, 3).long(), TypeError, "floating point"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_to_change(x, error, message):
    with pytest.raises(error, match=message):
        ClaimedBranch(nn.Linear(3, 3), 0.9)(x)


def test_a_module_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match=r"shape of x, \(4, 3\), and has returned \(4, 2\)"):
        ClaimedBranch(nn.Linear(3, 2), 0.9)(torch.ones(4, 3))


def test_a_looser_solver_does_not_hide_a_broken_claim():
    branch = ClaimedBranch(Matrix(orthogonal(3, 1.1)), 0.9)
    block = InvertibleResidualBlock(branch, solver=FixedPoint(on_failure="warn", max_steps=3))
    with pytest.raises(BrokenLipschitzClaim):
        block.solve(torch.randn(4, 3, dtype=torch.float64))


def test_batch_statistics_are_refused_and_running_ones_are_not():
    g = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    with torch.no_grad():
        g[0].weight.mul_(0.1)
    branch, x = ClaimedBranch(g, 0.9), torch.randn(5, 3)
    with pytest.raises(ValueError, match=r"BatchNorm1d \(1\) mixes .* ActNorm"):
        branch(x)
    assert branch.eval()(x).shape == (5, 3)


@pytest.mark.parametrize("side", ["log_abs_det", "invert"])
def test_parameters_that_a_module_keeps_in_lists_too_have_their_gradient(side):
    module = Listed()
    block = InvertibleResidualBlock(ClaimedBranch(module, 0.9), Exact())
    x, weights = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)

    def loss():
        if side == "invert":
            return (block.invert(x)[:, 0] * weights).sum()
        return (block(x)[1] * weights).sum()

    for parameter in (module.first, module.second):
        (gradient,) = torch.autograd.grad(loss(), parameter)
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter.add_(step * direction)
                values.append(loss())
        with torch.no_grad():
            parameter.add_(1e-5 * direction)
        slope = (values[0] - values[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-8)
