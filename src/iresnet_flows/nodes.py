"""Nodes of autograd's graph, at the price of a node."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["node"]


def node(function: type[torch.autograd.Function], *arguments: Any) -> Any:
    """`function.apply` of all its arguments.

    Without transforms of `torch.func` it leaves out the look for defaults in the signature of
    `forward`, which takes longer than a small node itself.
    """
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return function.apply(*arguments)
    return super(torch.autograd.Function, function).apply(*arguments)  # type: ignore[misc]
