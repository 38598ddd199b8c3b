"""Gradients in all that a branch is made of, whatever stands in the places of its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from iresnet_flows import (
    ClaimedBranch,
    Exact,
    InvertibleResidualBlock,
    LipschitzMLP,
    PowerSeries,
)
from iresnet_flows.blocks import CayleyBlock
from iresnet_flows.lipschitz import Branch, Elementwise, LipschitzDenseNet
from iresnet_flows.maps import FunctionMap


class Twice(nn.Module):
    def forward(self, x):
        return 2 * x


def finite_difference(loss, source, direction, step=1e-6):
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            source.add_(sign * step * direction)
            values.append(loss())
            source.sub_(sign * step * direction)
    return (values[0] - values[1]) / (2 * step)


def parametrized(branch):
    parametrize.register_parametrization(branch.weights, "0", Twice())
    return branch.weights.parametrizations["0"].original


def replaced(branch):
    """As in a replica of DataParallel, and as with a value that Pyro draws."""
    source = branch.weights[0].detach().clone().requires_grad_()
    del branch.weights._parameters["0"]
    object.__setattr__(branch.weights, "0", source)
    return source


@pytest.mark.parametrize("memory", ["full", "low"])
@pytest.mark.parametrize("side", ["forward", "inverse"])
@pytest.mark.parametrize("place", [parametrized, replaced])
@pytest.mark.parametrize("kind", [InvertibleResidualBlock, CayleyBlock])
@pytest.mark.parametrize("make", [LipschitzMLP, LipschitzDenseNet])
def test_a_weight_that_is_no_parameter_has_its_gradient(make, kind, place, side, memory):
    branch = make(2, (8, 8), context_features=3).double()
    source = place(branch)
    block = kind(branch, log_det=Exact(), memory=memory)
    x, context = (torch.randn(5, n, dtype=torch.float64) for n in (2, 3))
    weights = torch.randn(5, dtype=torch.float64)

    def loss():
        y, logabsdet = getattr(block, side)(x, context)
        return weights @ (y.sin().sum(-1) + logabsdet)

    direction = torch.randn_like(source)
    (gradient,) = torch.autograd.grad(loss(), source)
    truth = finite_difference(loss, source, direction)
    torch.testing.assert_close((gradient * direction).sum(), truth, rtol=1e-5, atol=1e-7)


class Hidden:
    def __init__(self, scale):
        self.scale = scale


class Scaled(nn.Module):
    """A module with a tensor that torch does not know of."""

    def __init__(self, scale):
        super().__init__()
        self.hidden = Hidden(scale)

    def forward(self, x):
        return self.hidden.scale * x.sin()


def claimed(module):
    return ClaimedBranch(module, 0.5)


def activated(module):
    return LipschitzMLP(2, (8,), activation=Elementwise(module, 1.0))


@pytest.mark.parametrize(
    ("make", "side", "memory"),
    [
        *[(claimed, side, "full") for side in ("forward", "inverse", "invert", "solve")],
        *[(activated, side, "full") for side in ("inverse", "invert", "solve")],
        *[(make, "forward", "low") for make in (claimed, activated)],
    ],
)
def test_a_gradient_that_would_be_lost_is_refused(make, side, memory):
    scale = torch.tensor(0.3, requires_grad=True)
    block = InvertibleResidualBlock(make(Scaled(scale)), memory=memory)
    call, x = getattr(block, side), torch.randn(4, 2)
    with pytest.raises(ValueError, match="would have no gradient in it: register it"):
        call(x)
    with torch.no_grad():
        call(x)
    scale.requires_grad_(False)
    call(x)


def test_a_gradient_that_is_not_lost_is_not_refused():
    for make, part in ((claimed, 0), (activated, 0), (activated, 1)):
        scale = torch.tensor(0.3, requires_grad=True)
        block = InvertibleResidualBlock(make(Scaled(scale)), log_det=Exact())
        x = torch.randn(4, 2, dtype=torch.float64)
        block.double()

        def total(block=block, x=x, part=part):
            return block.transform(x).sum() if part == 0 else block(x)[part].sum()

        (gradient,) = torch.autograd.grad(total(), scale)
        truth = finite_difference(total, scale, torch.ones(()), step=1e-3)
        torch.testing.assert_close(gradient, truth.float(), rtol=1e-3, atol=1e-4)


@dataclass(frozen=True)
class Own(FunctionMap):
    """A map of a user's own branch."""

    lipschitz: torch.Tensor = field(kw_only=True)


class OwnBranch(Branch):
    def __init__(self, rows, others, call):
        super().__init__()
        self.given = rows, others, call

    def check(self, x, context=None):
        pass

    def at(self, context=None):
        rows, others, call = self.given
        return Own(call, rows, others, lipschitz=torch.tensor(0.6).double())


@pytest.mark.parametrize("side", ["forward", "inverse"])
def test_a_map_of_the_users_own_must_name_its_tensors(side):
    scale = torch.tensor(0.3, requires_grad=True)
    x = torch.randn(4, 2)
    block = InvertibleResidualBlock(OwnBranch((), (), lambda x: scale * x.sin()), Exact())
    with pytest.raises(ValueError, match="would have no gradient in it"):
        getattr(block, side)(x)
    block = InvertibleResidualBlock(OwnBranch((), (scale,), lambda x, s: s * x.sin()), Exact())
    y, logabsdet = getattr(block, side)(x)
    assert torch.autograd.grad(y.sum() + logabsdet.sum(), scale)[0] != 0


@pytest.mark.parametrize("memory", ["full", "low"])
@pytest.mark.parametrize("side", ["forward", "inverse"])
@pytest.mark.parametrize("log_det", [Exact(), PowerSeries(terms=3)])
def test_whole_numbers_in_a_map_need_no_gradient(side, memory, log_det):
    labels = torch.tensor([0, 2, 1, 0])
    table = torch.rand(3, 2).double().mul(0.5).requires_grad_()
    branch = OwnBranch((labels,), (table,), lambda x, i, t: t[i] * x.sin())
    block = InvertibleResidualBlock(branch, log_det, memory=memory)
    x = torch.randn(4, 2).double()

    def loss():
        with block.frozen():
            y, logabsdet = getattr(block, side)(x)
        return y.sin().sum() + logabsdet.sum()

    direction = torch.randn_like(table)
    (gradient,) = torch.autograd.grad(loss(), table)
    truth = finite_difference(loss, table, direction)
    torch.testing.assert_close((gradient * direction).sum(), truth, rtol=1e-5, atol=1e-7)
