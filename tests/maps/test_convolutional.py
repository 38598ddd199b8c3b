"""The Jacobian of a convolutional branch, in every view, against the dense one."""

from __future__ import annotations

import pytest
import torch
from cases import hostile
from jacobians import check_cotangents, dense

from iresnet_flows import Exact, InvertibleResidualBlock, LipschitzConvNet, PowerSeries

KERNELS = [
    (3, 1, 3),
    (3, 3),
    (5, 1, 3),
    (3, 1, 5),
    (1, 1, 3),
    (1, 1),
    (5, 5),
    (3, 3, 3),
    (7, 1, 7),
]
SIZES = [(1, 1), (1, 2), (2, 2), (3, 3), (5, 4), (8, 8)]

each_kernel = pytest.mark.parametrize("kernels", KERNELS, ids=str)
each_size = pytest.mark.parametrize("size", SIZES, ids=str)


def build(kernels: tuple[int, ...], activation: str, context_features: int | None = None):
    hidden = (6, 4)[: len(kernels) - 1]
    g = LipschitzConvNet(
        2, hidden, kernels, 0.9, context_features=context_features, activation=activation
    )
    return hostile(g.double())


@each_kernel
@each_size
@pytest.mark.parametrize("activation", ["tanh", "csin"])
def test_every_view_of_the_jacobian_agrees_with_the_dense_one(kernels, size, activation):
    g = build(kernels, activation)
    x = torch.randn(3, 2, *size, dtype=torch.float64)
    value, jacobian = g.at().linearize(x)
    truth = dense(g, x)
    v = torch.randn(4, *x.shape, dtype=torch.float64)

    torch.testing.assert_close(value, g(x))
    torch.testing.assert_close(jacobian.dense(), truth)
    torch.testing.assert_close(
        jacobian.apply(v).flatten(2), torch.einsum("bij,pbj->pbi", truth, v.flatten(2))
    )
    torch.testing.assert_close(
        jacobian.apply_transposed(v).flatten(2),
        torch.einsum("bji,pbj->pbi", truth, v.flatten(2)),
    )
    assert jacobian.rank() == truth.shape[-1]
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(jacobian.take(rows).dense(), truth[rows])

    known = jacobian.traces(2)
    assert len(known) == jacobian.known_traces(2) == (0 if kernels == (3, 3, 3) else 1)
    for trace in known:
        torch.testing.assert_close(trace, truth.diagonal(dim1=-2, dim2=-1).sum(-1))


def test_the_trace_follows_the_context():
    g = build((3, 1, 3), "csin", context_features=3)
    x, context = torch.randn(3, 2, 4, 3).double(), torch.randn(3, 3).double()
    _, jacobian = g.at(context).linearize(x)
    truth = dense(lambda t: g(t, context), x).diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(jacobian.traces(1)[0], truth)


@pytest.mark.parametrize("kernels", [(3, 1, 3), (3, 3)])
def test_the_trace_has_both_derivatives(kernels):
    g = build(kernels, "csin")
    x = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    _, jacobian = g.at().linearize(x)
    tensors = tuple(t.detach().requires_grad_() for t in jacobian.tensors)

    def trace(*tensors):
        return jacobian.rebuild(*tensors).traces(1)[0]

    assert torch.autograd.gradcheck(trace, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(trace, tensors, fast_mode=True)


@pytest.mark.parametrize("kernels", [(3, 1, 3), (3, 3), (3, 3, 3)])
def test_the_cotangents_are_those_of_autograd(kernels):
    _, jacobian = build(kernels, "csin").at().linearize(torch.randn(3, 2, 3, 4).double())
    check_cotangents(jacobian)


def test_the_series_is_unbiased_and_its_noise_is_small_with_the_trace():
    g = build((3, 1, 3), "csin")
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    truth = InvertibleResidualBlock(g, Exact()).log_abs_det(x).value
    dense_truth = torch.linalg.slogdet(torch.eye(18).double() + dense(g, x)).logabsdet
    torch.testing.assert_close(truth, dense_truth)
    block = InvertibleResidualBlock(g, PowerSeries(tolerance=1e-6, probes=1000))
    value, standard_error, bias_bound = block.log_abs_det(x)
    assert ((value - truth).abs() <= 4 * standard_error + bias_bound).all()
