"""The dense Jacobian of a map, and what the views of one must agree with."""

from __future__ import annotations

import torch

__all__ = ["check_cotangents", "check_products", "dense"]


def dense(function, x):
    """Its Jacobians at a batch of points, (B, d, d), by autograd."""
    jacobian = torch.autograd.functional.jacobian(lambda t: function(t).sum(0).flatten(), x)
    return jacobian.transpose(0, 1).flatten(2)


def check_products(jacobian, truth):
    """Of vectors, in both directions, and of all unit vectors."""
    v = torch.randn(3, *truth.shape[:2], dtype=truth.dtype)
    torch.testing.assert_close(jacobian.dense(), truth)
    torch.testing.assert_close(jacobian.apply(v), torch.einsum("bij,pbj->pbi", truth, v))
    torch.testing.assert_close(
        jacobian.apply_transposed(v), torch.einsum("bji,pbj->pbi", truth, v)
    )


def check_cotangents(jacobian):
    """They are those of autograd."""
    tensors = tuple(t.detach().requires_grad_() for t in jacobian.tensors)
    v, w = (torch.randn(2, *jacobian.batch_event, dtype=tensors[0].dtype) for _ in range(2))
    (w * jacobian.rebuild(*tensors).apply(v)).sum().backward()
    for result, tensor in zip(jacobian.cotangents(w, v), tensors, strict=True):
        torch.testing.assert_close(result, tensor.grad)
