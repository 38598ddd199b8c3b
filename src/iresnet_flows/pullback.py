"""Derivatives by `torch.func` in every mode of torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Pull", "outside", "pull_back", "vjp"]

Pull = Callable[[Tensor], tuple[Tensor]]
Result = TypeVar("Result")


def vjp(function: Callable[..., Tensor], x: Tensor, *others: Tensor) -> tuple[Tensor, Pull]:
    """The value at x, and what pulls vectors back to x; the others are held."""
    value, pull = outside(partial(record, function), x, *others)
    return value, partial(outside, pull)


def pull_back(
    function: Callable[..., Tensor], tensors: Sequence[Tensor], cotangent: Tensor
) -> tuple[Tensor | None, ...]:
    """The cotangents of all tensors from that of the function's value; None of whole numbers."""

    def of_real(*real: Tensor) -> Tensor:
        values = iter(real)
        return function(*(next(values) if t.is_floating_point() else t for t in tensors))

    def pulled(cotangent: Tensor, *real: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = torch.func.vjp(of_real, *real)[1](cotangent)
        return found

    found = iter(outside(pulled, cotangent, *(t for t in tensors if t.is_floating_point())))
    return tuple(next(found) if t.is_floating_point() else None for t in tensors)


def outside(function: Callable[..., Result], *tensors: Tensor) -> Result:
    """The function of the tensors; in inference mode it is called without gradient instead.

    There `torch.func` records nothing before torch 2.12, and every derivative is 0.

    Raises:
        RuntimeError: Tensors are to be saved in another way, of which `torch.func` knows nothing.
    """
    if torch.compiler.is_compiling():
        return function(*tensors)
    if not torch.is_inference_mode_enabled():
        try:
            return function(*tensors)
        except RuntimeError as error:
            if "saved tensor hooks" not in str(error):
                raise
            raise RuntimeError(
                "a module of your own in a branch, or a solve, is differentiated by torch.func "
                "here, which does not go with torch.utils.checkpoint(use_reentrant=False) or "
                "save_on_cpu: give the block memory='low' in their place, or take "
                "use_reentrant=True."
            ) from error
    with torch.inference_mode(mode=False), torch.no_grad():
        return function(*map(plain, tensors))


def record(function: Callable[..., Tensor], *tensors: Tensor) -> tuple[Tensor, Pull]:
    x, *others = map(plain, tensors)
    value, pull = torch.func.vjp(lambda x: function(x, *others), x)[:2]
    return value, pull


def plain(tensor: Tensor) -> Tensor:
    """What can be recorded, as a tensor of inference mode cannot."""
    return tensor if torch.compiler.is_compiling() or not tensor.is_inference() else tensor.clone()
