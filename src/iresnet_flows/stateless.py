"""Modules as functions of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import chain
from types import CellType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TORCH_ATTRIBUTES", "call_with", "floating"]

TORCH_ATTRIBUTES = frozenset(vars(nn.Module()))
"""The attributes that torch gives every module; all others are the user's."""


def call_with(module: nn.Module, state: Mapping[str, Tensor], arguments: tuple[Any, ...]) -> Any:
    """The module called with these parameters and buffers in place of its own.

    As `torch.func.functional_call`, which writes them into the module for the time of the call,
    where another thread would find them.
    """
    if not torch.compiler.is_compiling():  # where the call leaves no trace, and copies are none
        module = hollow(module, state)
    return torch.func.functional_call(module, dict(state), arguments)


def floating(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers that have gradients and follow a change of dtype."""
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor


def hollow(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """The module with the same tensors, in places of its own, and its children alike.

    Arguments:
        module: The module.
        state: What takes the place of parameters and buffers in lists and other attributes of the
            module, beside the places that torch knows of.
    """
    copies = {part: part.__new__(type(part)) for part in module.modules()}
    named = chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    known: dict[int, Any] = {id(t): state[name] for name, t in named if name in state}
    moves = {*map(id, copies), *known}
    for part, copy in copies.items():
        copy.__dict__.update(part.__dict__)
        for place in ("_parameters", "_buffers"):
            copy.__dict__[place] = part.__dict__[place].copy()
        copy.__dict__["_modules"] = {
            name: None if child is None else copies[child] for name, child in part._modules.items()
        }
        for name in part.__dict__.keys() - TORCH_ATTRIBUTES:
            copy.__dict__[name] = moved(part.__dict__[name], copies, known, moves)
    return copies[module]


def moved(
    value: Any, copies: Mapping[nn.Module, nn.Module], known: dict[int, Any], moves: set[int]
) -> Any:
    """The value, or one like it that refers to the copies where it refers to modules.

    Followed are methods, functions with what they enclose, partials, lists, tuples and dicts.

    Arguments:
        value: An attribute, such as a method of the module, or a list of some of its children.
        copies: Those of the modules.
        known: What became of the values that were met, by their identities.
        moves: The identities of the modules, and of the tensors that others stand in for.
    """
    if isinstance(value, nn.Module):
        return copies.get(value, value)
    if id(value) not in known:
        known[id(value)] = value
        if reaches(value, moves):
            rebuild(value, known, lambda part: moved(part, copies, known, moves))
    return known[id(value)]


def reaches(value: Any, moves: set[int]) -> bool:
    """Whether it refers to one of these modules or tensors, through however many others."""
    seen: dict[int, Any] = {}
    todo = [value]
    while todo:
        part = todo.pop()
        if id(part) in moves:
            return True
        if not isinstance(part, nn.Module) and id(part) not in seen:
            seen[id(part)] = part
            todo += contents(part)
    return False


def contents(value: Any) -> list[Any]:
    """What a method, a function or a plain container holds."""
    if isinstance(value, MethodType):
        return [value.__self__]
    if isinstance(value, FunctionType):
        cells = [c.cell_contents for c in value.__closure__ or () if is_filled(c)]
        return [*cells, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    if type(value) is partial:
        return [value.func, *value.args, *value.keywords.values()]
    if type(value) is dict:
        return list(value.values())
    return list(value) if type(value) in (list, tuple) else []


def rebuild(value: Any, known: dict[int, Any], move: Callable[[Any], Any]) -> None:
    """Note such a value with other contents; before them where they may hold it."""
    if isinstance(value, FunctionType):
        cells = tuple(CellType() for _ in value.__closure__ or ())
        copy = FunctionType(value.__code__, value.__globals__, value.__name__, None, cells)
        known[id(value)] = copy
        copy.__dict__.update(value.__dict__)
        for new, old in zip(cells, value.__closure__ or (), strict=True):
            if is_filled(old):
                new.cell_contents = move(old.cell_contents)
        copy.__defaults__ = value.__defaults__ and tuple(map(move, value.__defaults__))
        named = value.__kwdefaults__ or {}
        copy.__kwdefaults__ = {name: move(part) for name, part in named.items()}
    elif type(value) is dict:
        table = known[id(value)] = {}
        table.update((name, move(part)) for name, part in value.items())
    elif type(value) is list:
        parts = known[id(value)] = []
        parts += map(move, value)
    elif type(value) is tuple:
        known[id(value)] = tuple(map(move, value))
    elif type(value) is partial:
        named = {name: move(part) for name, part in value.keywords.items()}
        known[id(value)] = partial(move(value.func), *map(move, value.args), **named)
    else:
        known[id(value)] = MethodType(value.__func__, move(value.__self__))


def is_filled(cell: CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
