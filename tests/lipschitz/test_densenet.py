"""The densely connected branch: its formula; its bound under attack is in test_attacks."""

from __future__ import annotations

import math

import pytest
import torch
from cases import hostile
from torch import nn

from iresnet_flows import LipschitzDenseNet
from iresnet_flows.lipschitz import Elementwise

BRANCHES = {
    "defaults but narrow": lambda: LipschitzDenseNet(3, (8, 8)),
    "csin": lambda: LipschitzDenseNet(3, (8, 8), activation="csin"),
    "d = 1": lambda: LipschitzDenseNet(1, (16,), lipschitz=0.5),
    "three hidden layers": lambda: LipschitzDenseNet(4, (6, 2, 6), lipschitz=0.99),
    "context": lambda: LipschitzDenseNet(2, (8, 8), context_features=3),
}

each_branch = pytest.mark.parametrize("make", BRANCHES.values(), ids=BRANCHES)


class Steep(nn.Module):
    """An activation of slope 50."""

    def forward(self, z):
        return (50 * z).sin()


def context_for(g: LipschitzDenseNet, x: torch.Tensor) -> torch.Tensor | None:
    if g.context_features is None:
        return None
    return torch.randn(len(x), g.context_features, dtype=x.dtype)


def test_the_bound_is_reached_where_a_layer_only_keeps():
    g = LipschitzDenseNet(2, (4,), lipschitz=0.9).double()
    with torch.no_grad():
        g.angles.zero_()
        for weight in g.weights:
            weight.zero_()
        g.weights[-1][:, :2] = 5 * torch.eye(2)
    x = torch.zeros(2, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda t: g(t[None])[0], x)
    assert 0.9 * 0.998 <= torch.linalg.matrix_norm(jacobian, 2) <= 0.9


def test_the_bound_is_that_of_the_formula():
    g = hostile(LipschitzDenseNet(2, (4, 6), activation="tanh").double(), 0.1)
    *hidden, last = (torch.linalg.matrix_norm(m.weight, 2) for m in g.at().maps)
    expected = last
    for norm, angle in zip(hidden, g.angles, strict=True):
        expected = expected * (angle.cos() ** 2 + (angle.sin() * norm) ** 2).sqrt()
    assert expected <= g.lipschitz_bound() <= 1.01 * expected


def test_weights_whose_squares_are_out_of_range_are_held_and_have_gradients():
    g = LipschitzDenseNet(2, (4, 4), activation="tanh").double()
    with torch.no_grad():
        for weight in g.weights[:-1]:
            weight.mul_(1e200)
    assert 0 < g.lipschitz_bound() <= 0.9
    g(torch.randn(3, 2, dtype=torch.float64)).sum().backward()
    assert all(p.grad.isfinite().all() for p in g.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_shares_never_leave_the_unit_circle(dtype):
    g = LipschitzDenseNet(1, (2,) * 200).to(dtype)
    torch.nn.init.uniform_(g.angles, -10, 10)
    norms = g.shares().detach().double().norm(dim=1)
    assert (norms <= 1).all()
    assert (norms >= 1 - 8 * torch.finfo(dtype).eps).all()


def test_equal_shares_at_first():
    g = LipschitzDenseNet(2, (4, 4))
    torch.testing.assert_close(g.shares(), torch.full((2, 2), math.sqrt(0.5)))
    hostile(g)
    g.reset_parameters()
    torch.testing.assert_close(g.shares(), torch.full((2, 2), math.sqrt(0.5)))


@each_branch
def test_there_is_no_state_but_the_parameters_and_each_gets_a_gradient(make):
    g = hostile(make())
    x = torch.randn(4, g.features)
    g(x, context_for(g, x)).square().sum().backward()
    assert not g.lipschitz_bound().requires_grad
    assert not list(g.buffers())
    assert g.state_dict().keys() == dict(g.named_parameters()).keys()
    for name, parameter in g.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_context_for_all_samples_equals_one_for_each():
    g = hostile(LipschitzDenseNet(2, (8,), context_features=3))
    x, context = torch.randn(5, 2), torch.randn(3)
    torch.testing.assert_close(g(x, context), g(x, context.expand(5, 3)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": 0}, ValueError, "features must be at least 1, got 0"),
        ({"hidden_features": ()}, ValueError, "hidden_features must name the width of each"),
        ({"hidden_features": (8, 7)}, ValueError, "each of hidden_features must be a multiple"),
        ({"lipschitz": 1.0}, ValueError, r"lipschitz must lie in \(0, 1\), got 1.0"),
        ({"activation": "relu"}, ValueError, "unknown activation 'relu': did you mean 'elu'"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, error, message):
    with pytest.raises(error, match=message):
        LipschitzDenseNet(**{"features": 2, **arguments})


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"x must have the shape \(B, 2\), got \(5, 3\)"):
        LipschitzDenseNet(2, (8,))(torch.ones(5, 3))


def test_the_bound_is_that_of_the_present_activations():
    g = LipschitzDenseNet(1, (16,), activation=Elementwise(nn.Tanh(), slope=1.0)).double()
    with torch.no_grad():
        for weight in g.weights:
            weight.copy_(3 * weight.abs() + 0.1)
    assert float(g.lipschitz_bound()) <= 0.9
    x = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]

    for change in ("another slope", "another activation"):
        if change == "another slope":
            g.activations[0].module, g.activations[0].slope = Steep(), 50.0
        else:
            g.activations[0] = Elementwise(Steep(), slope=60.0)
        steepest = g.at().linearize(x)[1].dense().detach().abs().max()
        assert 0.01 < float(steepest) <= float(g.lipschitz_bound()) <= 0.9


def test_an_edit_of_the_bound_changes_no_later_one():
    g = LipschitzDenseNet(2, (8, 8)).double()
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            bound = g.lipschitz_bound()
            before = bound.clone()
            bound.mul_(0)
            assert torch.equal(g.lipschitz_bound(), before)
