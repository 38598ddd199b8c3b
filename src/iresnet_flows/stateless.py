"""Modules as functions of their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from operator import is_
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["call_with"]

OWN = frozenset(vars(nn.Module()))
"""What torch keeps in every module, and nothing of the user's."""


def call_with(module: nn.Module, state: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """The module called with these parameters and buffers in place of its own.

    As `torch.func.functional_call`, which writes them into the module for the time of the call,
    where another thread would find them.
    """
    if not torch.compiler.is_compiling():  # where the call leaves no trace, and copies are none
        module = hollow(module)
    return torch.func.functional_call(module, dict(state), arguments)


def hollow(module: nn.Module) -> nn.Module:
    """The module with the same tensors, in places of its own, and its children alike."""
    copies = {part: part.__new__(type(part)) for part in module.modules()}
    for part, copy in copies.items():
        copy.__dict__.update(part.__dict__)
        for place in ("_parameters", "_buffers"):
            copy.__dict__[place] = part.__dict__[place].copy()
        copy.__dict__["_modules"] = {
            name: None if child is None else copies[child] for name, child in part._modules.items()
        }
        for name in part.__dict__.keys() - OWN:
            copy.__dict__[name] = moved(part.__dict__[name], copies, {})
    return copies[module]


def moved(value: Any, copies: Mapping[nn.Module, nn.Module], known: dict[int, Any]) -> Any:
    """The value, or one like it that refers to the copies where it refers to modules.

    Arguments:
        value: An attribute, such as a method of the module, or a list of some of its children.
        copies: Those of the modules.
        known: The values that were met on the way, by their identities, for some hold themselves.
    """
    if isinstance(value, nn.Module):
        return copies.get(value, value)
    if id(value) in known:
        return known[id(value)]
    known[id(value)] = value

    held = contents(value)
    others = [moved(part, copies, known) for part in held]
    if not all(map(is_, others, held)):
        known[id(value)] = holding(value, others)
    return known[id(value)]


def contents(value: Any) -> list[Any]:
    """What a method, a function or a plain container holds."""
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        return [cell.cell_contents for cell in value.__closure__ or () if is_filled(cell)]
    if type(value) is partial:
        return [value.func, *value.args, *value.keywords.values()]
    if type(value) is dict:
        return list(value.values())
    return list(value) if type(value) in (list, tuple) else []


def holding(value: Any, parts: list[Any]) -> Any:
    """Such a value with other contents."""
    if isinstance(value, MethodType):
        return MethodType(value.__func__, parts[0])
    if isinstance(value, FunctionType):
        rest = iter(parts)
        cells = [CellType(next(rest)) if is_filled(c) else c for c in value.__closure__ or ()]
        copy = FunctionType(
            value.__code__, value.__globals__, value.__name__, value.__defaults__, tuple(cells)
        )
        copy.__kwdefaults__ = value.__kwdefaults__
        return copy
    if type(value) is partial:
        count = 1 + len(value.args)
        function, *arguments = parts[:count]
        named = dict(zip(value.keywords, parts[count:], strict=True))
        return partial(function, *arguments, **named)
    if type(value) is dict:
        return dict(zip(value, parts, strict=True))
    return tuple(parts) if type(value) is tuple else parts


def is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
