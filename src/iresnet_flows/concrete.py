"""Decisions that depend on values, also where `torch.func` has wrapped them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["concrete", "is_recorded", "is_wrapped"]


class Holder:
    """A place for a tensor that `torch.func` does not look into."""

    tensor: Tensor


class Unwrap(torch.autograd.Function):
    """The identity; on the way it hands out what is under the wrappers of `torch.func`."""

    @staticmethod
    def forward(tensor: Tensor, holder: Holder) -> Tensor:
        holder.tensor = tensor
        return tensor.clone()

    @staticmethod
    def setup_context(ctx: Any, _inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(_info: Any, in_dims: Any, tensor: Tensor, holder: Holder) -> tuple[Tensor, Any]:
        return Unwrap.apply(tensor, holder), in_dims[0]


def concrete(tensor: Tensor) -> Tensor:
    """The values of all samples, those that `torch.func.vmap` has hidden included.

    A loop that stops when every sample is done may ask this; Python's ``bool`` of a tensor inside
    `torch.func.vmap` raises.
    """
    if not is_wrapped(tensor):
        return tensor.detach()
    holder = Holder()
    Unwrap.apply(tensor.detach(), holder)
    return holder.tensor


def is_recorded() -> bool:
    """Whether a compiler or a tracer records what is computed, to repeat it for other values."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def is_wrapped(tensor: Tensor) -> bool:
    """Whether `torch.func` has hidden the values of the tensor."""
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)
