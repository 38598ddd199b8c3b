"""Maps of which only the values are known: their Jacobians against those of autograd."""

from __future__ import annotations

import pytest
import torch
from jacobians import check_cotangents, dense

from iresnet_flows.lipschitz.activations import SineCosine
from iresnet_flows.maps.derived import Negated, Transposed
from iresnet_flows.maps.functions import FunctionMap


def call(x, row, weight):
    """A function of every event, through an operation that has reverse derivatives alone."""
    features, slopes = SineCosine.apply(x.flatten(1) @ weight.mT + row)
    return (features[:, : len(weight)] * slopes[:, 0].roll(1, 1)).reshape(x.shape)


def build(*event: int, batch: int = 3) -> tuple[FunctionMap, torch.Tensor]:
    d = torch.Size(event).numel()
    row, weight = torch.randn(batch, d).double(), torch.randn(d, d).double()
    return FunctionMap(call, (row,), (weight,)), torch.randn(batch, *event).double()


EVENTS = [(1,), (4,), (2, 3), (2, 1, 2)]
each_event = pytest.mark.parametrize("event", EVENTS, ids=str)


@each_event
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_every_view_of_the_jacobian_agrees_with_the_dense_one(event, mode):
    g, x = build(*event)
    truth = dense(g, x)
    v = torch.randn(5, *x.shape, dtype=torch.float64)
    with mode():
        g, x, v = g.take(torch.arange(len(x))), x.clone(), v.clone()
        value, jacobian = g.linearize(x)
        torch.testing.assert_close(value, g(x))
        torch.testing.assert_close(jacobian.dense(), truth)
        for vectors in (v, v[:1], v[:0]):
            torch.testing.assert_close(
                jacobian.apply(vectors).flatten(2),
                torch.einsum("bij,pbj->pbi", truth, vectors.flatten(2)),
            )
            torch.testing.assert_close(
                jacobian.apply_transposed(vectors).flatten(2),
                torch.einsum("bji,pbj->pbi", truth, vectors.flatten(2)),
            )
        rows = torch.tensor([2, 0])
        torch.testing.assert_close(jacobian.take(rows).dense(), truth[rows])
        torch.testing.assert_close(g.take(rows)(x[rows]), value[rows])
        assert jacobian.to(torch.float32).dense().dtype == torch.float32
    assert jacobian.rank() == truth.shape[-1]


def test_what_was_kept_without_gradient_is_not_used_with_one():
    g, x = build(4)
    x.requires_grad_()
    w = torch.randn(2, 3, 4, dtype=torch.float64)
    _, jacobian = g.linearize(x)
    with torch.no_grad():
        jacobian.apply_transposed(w)
    product = jacobian.apply_transposed(w)
    (result,) = torch.autograd.grad(product.square().sum(), x)
    full = torch.autograd.functional.jacobian(lambda t: g(t).sum(0), x, create_graph=True)
    (expected,) = torch.autograd.grad(torch.einsum("ibj,pbi->pbj", full, w).square().sum(), x)
    torch.testing.assert_close(result, expected)


def test_products_share_one_evaluation():
    calls = []

    def counted(x):
        calls.append(len(x))
        return x.sin()

    _, jacobian = FunctionMap(counted).linearize(torch.randn(3, 4))
    with torch.no_grad():
        for _ in range(5):
            jacobian.apply_transposed(torch.randn(1, 3, 4))
    assert calls == [1, 3]  # one sample shows what the function depends on
    jacobian.dense()
    assert calls == [1, 3, 12]


def test_a_large_dense_jacobian_takes_few_passes_of_bounded_size():
    calls = []

    def counted(x):
        calls.append(len(x))
        return x.sin()

    x = torch.randn(300, 30)
    dense = FunctionMap(counted).linearize(x)[1].dense()
    torch.testing.assert_close(dense, torch.diag_embed(x.cos()))
    assert max(calls) <= 4096
    assert len(calls) == 1 + 1 + 3


@each_event
def test_the_cotangents_are_those_of_autograd(event):
    g, x = build(*event)
    _, jacobian = g.linearize(x)
    check_cotangents(jacobian)


def test_a_linear_function_has_zero_cotangents_in_x():
    matrix, x = torch.randn(3, 3).double(), torch.randn(2, 3).double()
    _, jacobian = FunctionMap(lambda x, m: x @ m.mT, others=(matrix,)).linearize(x)
    v, w = torch.randn(2, 4, 2, 3).double()
    at_x, at_matrix = jacobian.cotangents(w, v)
    assert torch.equal(at_x, torch.zeros_like(x))
    torch.testing.assert_close(at_matrix, torch.einsum("pbi,pbj->ij", w, v))


@pytest.mark.parametrize("derived", [Transposed, Negated, lambda jacobian: jacobian])
def test_indices_stay_whole_in_another_dtype(derived):
    table, index = torch.randn(4, 3), torch.tensor([3, 0])
    g = FunctionMap(lambda x, i, t: t[i] * x.sin(), (index,), (table,))
    _, jacobian = g.linearize(torch.zeros(2, 3))
    matrices = derived(jacobian).to(torch.float64).dense()
    torch.testing.assert_close(matrices.abs(), table[index].abs().double().diag_embed())


def test_an_empty_batch_has_products():
    g, x = build(4, batch=0)
    _, jacobian = g.linearize(x)
    for vectors in (torch.zeros(2, 0, 4).double(), torch.zeros(1, 0, 4).double()):
        assert jacobian.apply(vectors).shape == vectors.shape
        assert jacobian.apply_transposed(vectors).shape == vectors.shape
    assert jacobian.dense().shape == (0, 4, 4)
