"""The Jacobian of a branch of each entry alone, in every view, against the dense one."""

from __future__ import annotations

import pytest
import torch
from cases import hostile
from jacobians import check_cotangents, check_products, dense

from iresnet_flows.lipschitz import LipschitzElementwise

each_net = pytest.mark.parametrize(
    ("features", "hidden", "activation"), [(3, 4, "csin"), (1, 3, "tanh"), (5, 2, "clipswish")]
)


def build(features, hidden, activation, **kwargs):
    g = LipschitzElementwise(features, hidden, activation=activation, **kwargs).double()
    return hostile(g)


@each_net
def test_every_view_of_the_jacobian_agrees_with_the_dense_one(features, hidden, activation):
    g = build(features, hidden, activation)
    x = torch.randn(4, features, dtype=torch.float64)
    value, jacobian = g.at().linearize(x)
    truth = dense(g, x)

    torch.testing.assert_close(value, g(x))
    check_products(jacobian, truth)
    torch.testing.assert_close(jacobian.diagonal().diag_embed(), truth)
    torch.testing.assert_close(jacobian.blocks().flatten(1), jacobian.diagonal())
    assert jacobian.core().shape == (4, features, 1, 1)
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(jacobian.take(rows).dense(), truth[rows])
    torch.testing.assert_close(
        jacobian.to(torch.float32).diagonal().double(), jacobian.diagonal(), rtol=1e-4, atol=1e-5
    )


@each_net
def test_a_context_of_each_row_goes_with_it(features, hidden, activation):
    g = build(features, hidden, activation, context_features=3)
    x, context = torch.randn(4, features).double(), torch.randn(4, 3).double()
    rows = torch.tensor([3, 1])
    part, jacobian = g.at(context).take(rows).linearize(x[rows])
    torch.testing.assert_close(part, g(x, context)[rows])
    torch.testing.assert_close(jacobian.dense(), dense(lambda t: g(t, context), x)[rows])


@each_net
def test_the_cotangents_are_those_of_autograd(features, hidden, activation):
    _, jacobian = (
        build(features, hidden, activation).at().linearize(torch.randn(4, features).double())
    )
    check_cotangents(jacobian)
