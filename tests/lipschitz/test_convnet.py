"""The convolutional branch: its bound from both sides, at every moment and image size."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from cases import hostile

from iresnet_flows import LipschitzConvNet
from iresnet_flows.lipschitz.convolution_norms import Spectrum

SIZES = [(1, 1), (2, 3), (5, 4)]

BRANCHES = {
    "defaults but narrow": lambda: LipschitzConvNet(2, (8, 8)),
    "one channel": lambda: LipschitzConvNet(1, (6, 4), lipschitz=0.5),
    "two convolutions": lambda: LipschitzConvNet(3, (8,), (3, 3), activation="lipswish"),
    "kernels of five": lambda: LipschitzConvNet(2, (6, 6), (5, 1, 3), activation="elu"),
    "threes throughout": lambda: LipschitzConvNet(2, (4, 6), (3, 3, 3), lipschitz=0.99),
    "context": lambda: LipschitzConvNet(2, (8, 8), context_features=3),
}

each_branch = pytest.mark.parametrize("make", BRANCHES.values(), ids=BRANCHES)


def context_for(g: LipschitzConvNet, x: torch.Tensor) -> torch.Tensor | None:
    if g.context_features is None:
        return None
    return torch.randn(len(x), g.context_features, dtype=x.dtype)


def sampled_norm(g: LipschitzConvNet, height: int, width: int) -> float:
    """The largest norm of the Jacobian at random images near and far."""
    shape = (6, g.channels, height, width)
    x = torch.cat([s * torch.randn(shape, dtype=g.weights[0].dtype) for s in (0.01, 1.0, 10.0)])
    context = context_for(g, x)
    jacobian = torch.autograd.functional.jacobian(lambda t: g(t, context).sum(0), x)
    jacobian = jacobian.flatten(0, 2).transpose(0, 1).flatten(2)
    return float(torch.linalg.matrix_norm(jacobian.double(), 2).max())


def train_hostilely(g: LipschitzConvNet) -> None:
    optimizer = torch.optim.Adam(g.parameters(), lr=0.1)
    x = torch.randn(16, g.channels, 5, 4, dtype=g.weights[0].dtype)
    context = context_for(g, x)
    for _ in range(40):
        optimizer.zero_grad()
        (g(x, context) - 100 * x).square().mean().backward()
        optimizer.step()


def check_bound(g: LipschitzConvNet, rounding: float = 1e-12) -> None:
    bound = g.lipschitz_bound()
    assert bound.dtype == torch.float64
    assert bound <= g.lipschitz
    for height, width in SIZES:
        assert sampled_norm(g, height, width) <= float(bound) * (1 + rounding)


@each_branch
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_bound_holds_at_first_and_after_hostile_steps_in_either_dtype(make, dtype):
    g = make().to(dtype)
    rounding = 10 * torch.finfo(dtype).eps
    check_bound(g, rounding)
    train_hostilely(g)
    check_bound(g, rounding)
    assert g.lipschitz_bound() > 0.7 * g.lipschitz


@each_branch
def test_the_bound_holds_for_huge_weights_and_after_loading_copying_and_casting(make):
    g = make()
    with torch.no_grad():
        for weight in g.weights:
            weight.mul_(30)
    fresh = make()
    fresh.load_state_dict(dict(g.named_parameters()))
    for other in (fresh, copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        check_bound(other, 1e-6)
        assert other.lipschitz_bound() == g.lipschitz_bound()
    check_bound(g.double())


def test_the_bound_is_nearly_reached_where_it_can_be():
    """A mean over nine pixels hands on a constant image unchanged, but for its rim."""
    g = LipschitzConvNet(1, (1,), (3, 3), lipschitz=0.9, activation="tanh").double()
    with torch.no_grad():
        for weight in g.weights:
            weight.fill_(5.0)
        g.biases[0].zero_()
    x = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    linear = torch.autograd.functional.jacobian(lambda t: g(t).sum(0), x).reshape(576, 576)
    assert 0.9 / 1.12 <= torch.linalg.matrix_norm(linear, 2) <= 0.9


def test_the_initial_kernels_have_the_same_norm_at_every_frequency_and_the_map_is_near_zero():
    g = LipschitzConvNet(2, (8, 8), (3, 1, 5))
    for weight in (g.weights[0], 10 * g.weights[2]):
        spectrum = Spectrum(weight.detach())
        norms = torch.linalg.svdvals(spectrum.stack) * spectrum.scale
        torch.testing.assert_close(norms, torch.ones_like(norms))
    assert g.lipschitz_bound() < 0.2


def test_the_constraint_only_shrinks():
    g = LipschitzConvNet(2, (8, 8))
    with torch.no_grad():
        for weight in g.weights:
            weight.mul_(1e-3)
    assert all(map(torch.equal, [m.weight for m in g.at().maps], g.weights))
    assert g.lipschitz_bound() < 1e-7


@each_branch
def test_there_is_no_state_but_the_parameters_and_each_gets_a_gradient(make):
    g = hostile(make())
    x = torch.randn(4, g.channels, 3, 5)
    g(x, context_for(g, x)).square().sum().backward()
    assert not list(g.buffers())
    assert g.state_dict().keys() == dict(g.named_parameters()).keys()
    for name, parameter in g.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_a_context_for_all_images_equals_one_for_each():
    g = hostile(LipschitzConvNet(2, (8,), (3, 3), context_features=3))
    x, context = torch.randn(5, 2, 4, 3), torch.randn(3)
    torch.testing.assert_close(g(x, context), g(x, context.expand(5, 3)))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"channels": 0}, ValueError, "channels must be at least 1, got 0"),
        ({"hidden_channels": 64}, ValueError, "hidden_channels must name the width of each"),
        ({"hidden_channels": (8, 7)}, ValueError, "each of hidden_channels must be a multiple"),
        ({"kernel_sizes": (3, 3)}, ValueError, "kernel_sizes must name 3 sizes, one more than"),
        ({"kernel_sizes": 3}, ValueError, "kernel_sizes must name 3 sizes"),
        ({"kernel_sizes": (3, 2, 3)}, ValueError, "each of kernel_sizes must be odd, got 2"),
        ({"kernel_sizes": (3, 1.0, 3)}, TypeError, "each of kernel_sizes must be a whole number"),
        ({"lipschitz": 1.0}, ValueError, r"lipschitz must lie in \(0, 1\), got 1.0"),
        ({"context_features": 0}, ValueError, "context_features must be at least 1, got 0"),
        ({"activation": "relu"}, ValueError, "unknown activation 'relu': did you mean 'elu'"),
    ],
)
def test_bad_arguments_are_refused_with_what_to_pass(arguments, error, message):
    with pytest.raises(error, match=message):
        LipschitzConvNet(**{"channels": 2, **arguments})


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([[1.0, 2.0]], TypeError, "x must be a tensor, got list"),
        (torch.ones(2, 4, 4), ValueError, r"shape \(B, 2, H, W\), got \(2, 4, 4\)"),
        (torch.ones(5, 3, 4, 4), ValueError, r"shape \(B, 2, H, W\), got \(5, 3, 4, 4\)"),
        (torch.ones(5, 2, 0, 4), ValueError, r"shape \(B, 2, H, W\), got \(5, 2, 0, 4\)"),
        (torch.ones(5, 2, 4, 4).long(), TypeError, r"floating point.*x.to\(torch.float32\)"),
        (torch.ones(5, 2, 4, 4).double(), TypeError, r"x.to\(torch.float32\) or layer.to"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_to_change(x, error, message):
    with pytest.raises(error, match=message):
        LipschitzConvNet(2, (8, 8))(x)
