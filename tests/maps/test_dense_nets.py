"""The Jacobian of a densely connected branch, in every view, against the dense one."""

from __future__ import annotations

import pytest
import torch
from cases import hostile
from jacobians import check_cotangents, check_products, dense

from iresnet_flows import LipschitzDenseNet

WIDTHS = [(3, (4,)), (1, (6,)), (3, (6, 4)), (1, (2, 4)), (2, (4, 6, 4)), (5, (2, 2))]

each_net = pytest.mark.parametrize(("features", "hidden"), WIDTHS)


def build(features: int, hidden: tuple[int, ...], activation: str, **kwargs):
    g = LipschitzDenseNet(features, hidden, activation=activation, **kwargs).double()
    return hostile(g)


@each_net
@pytest.mark.parametrize("activation", ["tanh", "csin", "clipswish"])
def test_every_view_of_the_jacobian_agrees_with_the_dense_one(features, hidden, activation):
    g = build(features, hidden, activation)
    x = torch.randn(4, features, dtype=torch.float64)
    value, jacobian = g.at().linearize(x)
    truth = dense(g, x)

    torch.testing.assert_close(value, g(x))
    check_products(jacobian, truth)
    torch.testing.assert_close(jacobian.core().squeeze(1), truth)
    assert jacobian.rank() == features
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(jacobian.take(rows).dense(), truth[rows])
    single = jacobian.to(torch.float32).dense()
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), truth, rtol=1e-4, atol=1e-5)

    known = jacobian.traces(2)
    assert len(known) == jacobian.known_traces(2) == {1: 2, 2: 1}.get(len(hidden), 0)
    for result, power in zip(known, (truth, truth @ truth), strict=False):
        torch.testing.assert_close(result, power.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert len(jacobian.traces(1)) == jacobian.known_traces(1)


@each_net
def test_the_trace_follows_the_context(features, hidden):
    g = build(features, hidden, "csin", context_features=3)
    x, context = torch.randn(4, features).double(), torch.randn(4, 3).double()
    _, jacobian = g.at(context).linearize(x)
    truth = dense(lambda t: g(t, context), x).diagonal(dim1=-2, dim2=-1).sum(-1)
    for trace in jacobian.traces(1):
        torch.testing.assert_close(trace, truth)
    rows = torch.tensor([3, 1])
    torch.testing.assert_close(g.at(context).take(rows)(x[rows]), g(x, context)[rows])


@each_net
def test_the_cotangents_are_those_of_autograd(features, hidden):
    _, jacobian = build(features, hidden, "csin").at().linearize(torch.randn(4, features).double())
    check_cotangents(jacobian)


@pytest.mark.parametrize("hidden", [(4,), (4, 6)])
def test_the_traces_have_both_derivatives(hidden):
    _, jacobian = build(3, hidden, "csin").at().linearize(torch.randn(2, 3).double())
    tensors = tuple(t.detach().requires_grad_() for t in jacobian.tensors)

    def traces(*tensors):
        return jacobian.rebuild(*tensors).traces(2)

    assert torch.autograd.gradcheck(traces, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(traces, tensors, fast_mode=True)
