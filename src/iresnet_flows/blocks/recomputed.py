"""Functions that keep their arguments alone, and are evaluated anew for their gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from iresnet_flows.concrete import is_wrapped

__all__ = ["recomputed"]

Evaluate = Callable[..., tuple[Tensor, ...]]


def recomputed(evaluate: Evaluate, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The results of a function of tensors, the first two of them with their first derivatives.

    Unlike `torch.utils.checkpoint` it goes with `torch.func` inside the function, which refuses
    hooks of saved tensors.

    Arguments:
        evaluate: The function; it must give the same results each time.
        tensors: All that it depends on.

    Raises:
        RuntimeError: A second derivative, or a transform of `torch.func`, is asked for.
    """
    if any(map(is_wrapped, tensors)):
        raise RuntimeError(ONCE)
    results: tuple[Tensor, ...] = Recomputed.apply(evaluate, *tensors)
    return results


ONCE = (
    "a block with memory='low' keeps what first derivatives need, and a second one "
    "was asked for (create_graph=True or torch.func): build it with memory='full'."
)


class Recomputed(torch.autograd.Function):
    """See `recomputed`."""

    @staticmethod
    def forward(ctx: Any, evaluate: Evaluate, *tensors: Tensor) -> tuple[Tensor, ...]:
        kind = tensors[0].device.type
        ctx.evaluate = evaluate
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        ctx.save_for_backward(*tensors)
        results = evaluate(*tensors)
        ctx.mark_non_differentiable(*results[2:])
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(ONCE)
        needed = ctx.needs_input_grad[1:]
        tensors = [
            t.detach().requires_grad_(need)
            for t, need in zip(ctx.saved_tensors, needed, strict=True)
        ]
        with torch.enable_grad(), torch.autocast(*ctx.autocast):
            results = ctx.evaluate(*tensors)[:2]
        leaves = [t for t in tensors if t.requires_grad]
        found = iter(torch.autograd.grad(results, leaves, cotangents[:2], allow_unused=True))
        return None, *(next(found) if need else None for need in needed)
