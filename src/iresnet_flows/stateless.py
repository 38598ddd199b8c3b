"""Modules as functions of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["call_with"]


def call_with(module: nn.Module, state: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """The module called with these parameters and buffers in place of its own.

    As `torch.func.functional_call`, which writes them into the module for the time of the call,
    where another thread would find them.
    """
    if not torch.compiler.is_compiling():  # where the call leaves no trace, and copies are none
        module = hollow(module, {})
    return torch.func.functional_call(module, dict(state), arguments)


def hollow(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module with the same tensors, in places of its own, and its children alike."""
    if module not in known:
        copy = known[module] = module.__new__(type(module))
        copy.__dict__.update(module.__dict__)
        for place in ("_parameters", "_buffers"):
            copy.__dict__[place] = module.__dict__[place].copy()
        copy.__dict__["_modules"] = {
            name: None if child is None else hollow(child, known)
            for name, child in module._modules.items()
        }
    return known[module]
