"""Activations: derivatives, and the stated slope from both sides."""

from __future__ import annotations

import re

import pytest
import torch
from cases import ACTIVATIONS
from torch import nn

from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
from iresnet_flows.errors import BrokenLipschitzClaim
from iresnet_flows.lipschitz import Elementwise, make_activation

GRID = torch.linspace(-50, 50, 400_001, dtype=torch.float64)

ALL = {
    **{name: lambda name=name: make_activation(name) for name in ACTIVATIONS},
    "softsign": lambda: Elementwise(nn.Softsign(), slope=1.0),
    "prelu": lambda: Elementwise(nn.PReLU(init=0.3), slope=1.0),
}

each_activation = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


@each_activation
def test_linearize_gives_values_and_their_derivatives(make):
    activation = make().double()
    z = torch.randn(7, 3, dtype=torch.float64) * 3
    value, slopes = activation.linearize(z)
    assert value.shape == (7, activation.copies * 3)
    assert slopes.shape == (7, activation.copies, 3)
    torch.testing.assert_close(activation(z), value)
    torch.testing.assert_close(activation.at().linearize(z), (value, slopes))

    z.requires_grad_()
    copies = activation(z).unflatten(1, (activation.copies, 3)).unbind(1)
    truth = [torch.autograd.grad(c.sum(), z, retain_graph=True)[0] for c in copies]
    torch.testing.assert_close(slopes, torch.stack(truth, 1))


@each_activation
@pytest.mark.parametrize("step", [0.0, -3.0, 4.0])
def test_the_slope_bounds_the_derivative_and_is_nearly_reached(make, step):
    activation = make().double()
    with torch.no_grad():
        for parameter in activation.parameters():
            if not isinstance(activation, Elementwise):
                parameter.add_(step)
        norms = activation.linearize(GRID.unsqueeze(-1))[1].norm(dim=-2)
    assert norms.max() <= activation.slope * (1 + 1e-12)
    assert norms.max() >= 0.99 * activation.slope


def test_the_concatenated_sine_loses_nothing_at_any_input():
    slopes = make_activation("csin").linearize(GRID.unsqueeze(-1))[1]
    torch.testing.assert_close(slopes.norm(dim=-2), torch.ones(len(GRID), 1).double())


@each_activation
def test_derivatives_are_finite_far_away(make):
    z = torch.tensor([[-1e4, -100.0, 0.0, 100.0, 1e4]], requires_grad=True)
    value, slopes = make().linearize(z)
    assert value.isfinite().all()
    assert slopes.isfinite().all()
    (gradient,) = torch.autograd.grad(slopes.sum(), z)
    assert gradient.isfinite().all()


def test_the_parameters_of_a_wrapped_module_are_trained():
    activation = Elementwise(nn.PReLU(init=0.3), slope=1.0)
    activation.linearize(torch.randn(5, 3))[1].sum().backward()
    assert activation.module.weight.grad.abs() > 0


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"did you mean 'lipswish'\? Known: csin, sin"):
        make_activation("lipswsh")


def test_a_bare_module_is_answered_with_how_to_wrap_it():
    with pytest.raises(TypeError, match=re.escape("Elementwise(module, slope=...)")):
        make_activation(nn.Tanh())


def test_a_function_is_no_module():
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module, got builtin"):
        Elementwise(torch.tanh, slope=1.0)


@pytest.mark.parametrize("slope", [0.0, -1.0, float("inf"), float("nan")])
def test_a_slope_that_is_not_positive_and_finite_is_refused(slope):
    with pytest.raises(ValueError, match="slope must be a positive finite number"):
        Elementwise(nn.Tanh(), slope=slope)
    activation = Elementwise(nn.Tanh(), slope=1.0)
    with pytest.raises(ValueError, match="slope must be a positive finite number"):
        activation.slope = slope
    assert activation.slope == 1.0


def test_buffers_of_a_module_follow_the_dtype_of_the_solver():
    class Damped(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("factor", torch.tensor(0.5))

        def forward(self, z):
            return self.factor * z.tanh()

    block = InvertibleResidualBlock(
        LipschitzMLP(2, (8, 8), activation=Elementwise(Damped(), slope=0.5))
    )
    x = torch.randn(5, 2)
    torch.testing.assert_close(block.invert(block.transform(x)), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["forward", "inverse", "log_abs_det"])
def test_a_slope_above_the_stated_one_is_found_where_a_log_det_is_asked_for(name):
    activation = Elementwise(nn.PReLU(), slope=1.0)
    block = InvertibleResidualBlock(LipschitzMLP(2, activation=activation))
    x = torch.randn(20, 2)
    getattr(block, name)(x)
    with torch.no_grad():
        activation.module.weight.fill_(1.5)  # as training may
    with pytest.raises(BrokenLipschitzClaim, match=r"stated to have the slope 1, but it has 1\.5"):
        getattr(block, name)(x)
    with pytest.raises(BrokenLipschitzClaim):
        torch.func.vmap(getattr(block, name))(x[None])


class MaxMin(nn.Module):
    """Sorts pairs of entries: its Jacobian has one 1 in each row, and sums of 1."""

    def forward(self, z):
        pairs = z.unflatten(1, (-1, 2))
        return torch.stack((pairs.amax(2), pairs.amin(2)), 2).flatten(1)


@pytest.mark.parametrize(
    "module",
    [
        nn.Softmax(1),
        nn.LayerNorm(8),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8, track_running_stats=False),
        MaxMin(),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_module_that_mixes_entries_is_found_where_a_log_det_is_asked_for(module, dtype):
    g = LipschitzMLP(2, hidden_features=(8, 8), activation=Elementwise(module, slope=20.0))
    block = InvertibleResidualBlock(g).to(dtype)
    with pytest.raises(BrokenLipschitzClaim, match="each entry alone, but one of them moves"):
        block(torch.randn(20, 2, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "module",
    [nn.GELU(), nn.PReLU(8), nn.Softsign(), nn.Mish(), nn.Hardtanh(), nn.BatchNorm1d(8).eval()],
    ids=str,
)
def test_a_module_that_mixes_none_is_taken(module, dtype):
    g = LipschitzMLP(2, hidden_features=(8, 8), activation=Elementwise(module, slope=20.0))
    block = InvertibleResidualBlock(g).to(dtype)
    assert block(10 * torch.randn(50, 2, dtype=dtype))[1].isfinite().all()


def test_a_slope_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="slope must be a number, got '1'"):
        Elementwise(nn.Tanh(), slope="1")


def test_a_module_with_parameters_follows_the_dtype_of_the_solver():
    activation = Elementwise(nn.PReLU(), slope=1.0)
    block = InvertibleResidualBlock(LipschitzMLP(2, activation=activation))
    x = torch.randn(5, 2)
    torch.testing.assert_close(block.invert(block.transform(x)), x, rtol=0, atol=1e-5)


def test_softplus_does_not_jump_where_it_is_nearly_the_identity():
    z = torch.linspace(19.9, 41, 20_001, dtype=torch.float64).unsqueeze(1)
    value, slope = make_activation("softplus").linearize(z)
    quotient = value.diff(dim=0) / z.diff(dim=0)
    torch.testing.assert_close(quotient, slope[1:, 0], rtol=0, atol=1e-9)
