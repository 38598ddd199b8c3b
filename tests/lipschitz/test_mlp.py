"""The bounded branch: its bound from both sides, at every moment."""

from __future__ import annotations

import math

import pytest
import torch
from cases import ACTIVATIONS, hostile

from iresnet_flows import LipschitzDenseNet, LipschitzMLP

BRANCHES = {
    **{name: lambda name=name: LipschitzMLP(3, (8, 8), activation=name) for name in ACTIVATIONS},
    "d = 1": lambda: LipschitzMLP(1, (16,), lipschitz=0.5),
    "three hidden layers": lambda: LipschitzMLP(4, (16, 6, 16), lipschitz=0.99),
    "context": lambda: LipschitzMLP(2, (8, 8), context_features=3),
}

each_branch = pytest.mark.parametrize("make", BRANCHES.values(), ids=BRANCHES)


def constrained(g: LipschitzMLP) -> list[torch.Tensor]:
    return [m.weight for m in g.at().maps]


def test_the_bound_is_nearly_reached_where_it_can_be():
    g = LipschitzMLP(1, (1,), lipschitz=0.9, activation="tanh").double()
    with torch.no_grad():
        for weight in g.weights:
            weight.fill_(5.0)
        g.biases[0].zero_()
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(g(x).sum(), x)
    assert 0.9 * (1 - 1e-6) <= slope <= 0.9


def test_the_constraint_only_shrinks():
    g = LipschitzMLP(3, (8, 8))
    with torch.no_grad():
        for weight in g.weights:
            weight.mul_(1e-3)
    assert all(map(torch.equal, constrained(g), g.weights))
    assert g.lipschitz_bound() < 1e-8


def test_huge_weights_are_shrunk_to_the_bound():
    g = LipschitzMLP(3, (8, 8), activation="tanh")
    with torch.no_grad():
        for weight in g.weights:
            weight.mul_(1e15)
    norms = [
        float(torch.linalg.matrix_norm(weight.detach().double(), 2)) for weight in constrained(g)
    ]
    assert math.prod(norms) <= g.lipschitz_bound() <= 0.9
    assert float(g.lipschitz_bound()) == pytest.approx(0.9, rel=1e-9)


@each_branch
def test_the_bound_and_the_map_are_the_same_in_train_and_eval(make):
    g = hostile(make())
    train = g.train().lipschitz_bound(), constrained(g)
    evaluation = g.eval().lipschitz_bound(), constrained(g)
    assert train[0] == evaluation[0]
    assert all(map(torch.equal, train[1], evaluation[1]))


@each_branch
def test_there_is_no_state_but_the_parameters(make):
    g = make()
    g.lipschitz_bound()
    assert not list(g.buffers())
    assert g.state_dict().keys() == dict(g.named_parameters()).keys()


@each_branch
def test_the_bound_has_no_gradient_and_the_map_has_those_of_the_constraint(make):
    g = hostile(make())
    assert not g.lipschitz_bound().requires_grad
    context = None if g.context_features is None else torch.randn(g.context_features)
    g(torch.randn(4, g.features), context).square().sum().backward()
    for name, parameter in g.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_context_for_all_samples_equals_one_for_each():
    g = hostile(LipschitzMLP(2, (8,), context_features=3))
    x, context = torch.randn(5, 2), torch.randn(3)
    torch.testing.assert_close(g(x, context), g(x, context.expand(5, 3)))


def test_the_bound_is_that_of_the_product_and_each_norm_is_free():
    g = LipschitzMLP(2, (8, 8), lipschitz=0.7, activation="tanh")
    hostile(g, step=5.0)
    with torch.no_grad():
        g.weights[0].mul_(20)
    before, after = norms(g.weights), norms(constrained(g))
    assert math.prod(after) == pytest.approx(0.7, rel=1e-2)
    assert math.prod(after) <= 0.7 * (1 + 1e-6)
    assert after[:-1] == before[:-1]
    assert after[0] > 10


def norms(weights) -> list[float]:
    return [float(torch.linalg.matrix_norm(w.detach(), 2)) for w in weights]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"features": 0}, ValueError, "features must be at least 1, got 0"),
        ({"features": 2.0}, TypeError, "features must be a whole number, got 2.0"),
        ({"features": True}, TypeError, "features must be a whole number, got True"),
        ({"hidden_features": ()}, ValueError, "hidden_features must name the width of each"),
        ({"hidden_features": 64}, ValueError, "hidden_features must name the width of each"),
        ({"hidden_features": None}, ValueError, "hidden_features must name the width of each"),
        ({"hidden_features": (8, 0)}, ValueError, "each of hidden_features must be at least 1"),
        ({"hidden_features": (8, 1.5)}, TypeError, "each of hidden_features must be a whole"),
        ({"lipschitz": 1.0}, ValueError, r"lipschitz must lie in \(0, 1\), got 1.0.*only below 1"),
        ({"lipschitz": 0.0}, ValueError, r"lipschitz must lie in \(0, 1\)"),
        ({"lipschitz": "0.9"}, TypeError, "lipschitz must be a number, got '0.9'"),
        ({"lipschitz": torch.ones(2)}, TypeError, r"lipschitz must be a number, got tensor\(\["),
        ({"lipschitz": None}, TypeError, "lipschitz must be a number, got None"),
        ({"lipschitz": float("nan")}, ValueError, r"lipschitz must lie in \(0, 1\)"),
        ({"context_features": 0}, ValueError, "context_features must be at least 1, got 0"),
        ({"activation": "relu"}, ValueError, "unknown activation 'relu': did you mean 'elu'"),
        ({"activation": torch.nn.ReLU()}, TypeError, "Elementwise"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, error, message):
    with pytest.raises(error, match=message):
        LipschitzMLP(**{"features": 2, **arguments})


@pytest.mark.parametrize(
    ("x", "context", "error", "message"),
    [
        ([[1.0, 2.0]], None, TypeError, "x must be a tensor, got list"),
        (torch.ones(2), None, ValueError, r"x must have the shape \(B, 2\), got \(2,\)"),
        (torch.ones(5, 3), None, ValueError, r"x must have the shape \(B, 2\), got \(5, 3\)"),
        (torch.ones(5, 2).long(), None, TypeError, r"floating point.*x.to\(torch.float32\)"),
        (torch.ones(5, 2).double(), None, TypeError, r"x.to\(torch.float32\) or layer.to"),
        (torch.ones(5, 2), torch.ones(5, 1), ValueError, "build it with context_features"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_with_what_to_change(x, context, error, message):
    with pytest.raises(error, match=message):
        LipschitzMLP(2, (8,))(x, context)


@pytest.mark.parametrize(
    ("context", "error", "message"),
    [
        (None, ValueError, "built for a context of 3 features: pass it"),
        ([1.0, 2.0, 3.0], TypeError, "context must be a tensor, got list"),
        (
            torch.ones(5, 2),
            ValueError,
            r"\(5, 3\), a row for each sample, or \(3,\), got \(5, 2\)",
        ),
        (torch.ones(5, 3).double(), TypeError, "convert one of them"),
    ],
)
def test_contexts_that_do_not_fit_are_refused_with_what_to_change(context, error, message):
    with pytest.raises(error, match=message):
        LipschitzMLP(2, (8,), context_features=3)(torch.ones(5, 2), context)


@pytest.mark.parametrize(("factor", "held"), [(3.0, True), (0.1, False)])
@pytest.mark.parametrize("make", [LipschitzMLP, LipschitzDenseNet])
def test_the_gradients_in_the_weights_are_those_of_finite_differences(make, factor, held):
    g = make(2, (4, 6), activation="tanh").double()
    with torch.no_grad():
        for weight in g.weights:
            weight.copy_(factor * torch.randn_like(weight))
    assert (g.lipschitz_bound() > 0.85) == held
    names, weights = zip(*g.named_parameters())
    x = torch.randn(3, 2, dtype=torch.float64)

    def value(*weights):
        return torch.func.functional_call(g, dict(zip(names, weights)), x)

    assert torch.autograd.gradcheck(value, weights)
    assert torch.autograd.gradgradcheck(value, weights, atol=1e-4)
