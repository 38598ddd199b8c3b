"""Contenders of a user: the flows that a factory gives, by the name of the factory."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import torch
from nflows.flows.base import Flow

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.comparison.contenders.guests import as_flow
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.experiments.seeds import seeded

__all__ = ["GROUP", "Imported", "from_spec", "registered"]

GROUP = "iresnet_flows.contenders"
DEFAULT = (
    "its rate of 0.001 and its weight decay of 0.3 are defaults that nobody chose for it, unlike "
    "those of the others; a Contender in place of the function has its own"
)
ROWS = 8
WIDTH = 64


def from_spec(spec: str, name: str | None = None) -> Contender:
    """The contender that ``package.module:factory`` stands for.

    The factory is called with the number of features, and with the width if that is its second
    parameter; a default of it is the contender's own width. A `Contender` may stand in its
    place, for a learning rate and a recipe of its own.

    Arguments:
        spec: Where it is.
        name: What `--models` calls it. None: the same.

    Raises:
        UsageError: There is no such thing, or it is no factory.
    """
    found = imported(spec)
    own = name or spec
    if isinstance(found, Contender):
        return replace(found, name=own, origin="yours", make=Imported(spec, takes_width=True))
    width = own_width(spec, found)
    return Contender(
        own,
        name or spec,
        (inspect.getdoc(found) or f"{spec}, which does not describe itself").partition("\n")[0],
        Imported(spec, width is not None),
        width=width,
        origin="yours",
        remark=DEFAULT,
    )


def registered() -> dict[str, str]:
    """Names and factories that installed packages register as contenders."""
    return {entry.name: entry.value for entry in entry_points(group=GROUP)}


@dataclass(frozen=True)
class Imported:
    """Makes flows by a factory that is found by name, also in another process.

    Arguments:
        spec: Where the factory is.
        takes_width: Whether it takes a width.
    """

    spec: str
    takes_width: bool

    def source(self) -> str:
        """The text of the module that is named, and of that in which the factory is written."""
        found = imported(self.spec)
        factory = found.make if isinstance(found, Contender) else found
        while isinstance(factory, partial):
            factory = factory.func
        at_hand = sys.modules[self.spec.partition(":")[0]]
        return "".join(map(text, dict.fromkeys((at_hand, inspect.getmodule(factory)))))

    def __call__(self, features: int, width: int | None = None) -> Flow:
        """The flow, tried on a small batch.

        Raises:
            UsageError: The factory fails, or what it gives cannot be compared.
        """
        found = imported(self.spec)
        factory = found.make if isinstance(found, Contender) else found
        arguments = (features, width) if self.takes_width else (features,)
        with named(f"{self.spec}({', '.join(map(str, arguments))}) fails"):
            made = factory(*arguments)
        with named(f"{self.spec} gives what is no flow"):
            flow = as_flow(made, features)
        require_trainable(self.spec, flow)
        require_density(self.spec, flow, features)
        return flow


def text(module: ModuleType | None) -> str:
    try:
        return "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):  # it was typed, or compiled
        return ""


def imported(spec: str) -> Any:
    """What stands at ``package.module:factory``; the current directory is looked through too.

    Raises:
        UsageError: Nothing does, or it cannot be called.
    """
    module, colon, path = spec.partition(":")
    if not (module and colon and path):
        raise UsageError(f"contender {spec!r}: name it as package.module:factory.")
    if "" not in sys.path and os.getcwd() not in sys.path:  # noqa: PTH109
        sys.path.insert(0, "")
    found: Any
    with named(f"contender {spec!r}: {module} cannot be imported"):
        found = import_module(module)
    for part in path.split("."):
        if not hasattr(found, part):
            raise UsageError(f"contender {spec!r}: {module} has no {path}.")
        found = getattr(found, part)
    if not callable(found) and not isinstance(found, Contender):
        raise UsageError(
            f"contender {spec!r}: a {type(found).__name__} cannot be called: name a function of "
            "the number of features."
        )
    return found


def own_width(spec: str, factory: Callable[..., Any]) -> int | None:
    """The default width of a factory whose second parameter is one, else None."""
    with named(f"contender {spec!r}: its parameters cannot be told"):
        second = list(inspect.signature(factory).parameters.values())[1:2]
    if not second or second[0].name != "width":
        return None
    default = second[0].default
    return default if isinstance(default, int) else WIDTH


def require_trainable(spec: str, flow: Flow) -> None:
    if not any(p.requires_grad for p in flow.parameters()):
        raise UsageError(
            f"{spec} gives a flow without trainable parameters: return modules, not functions "
            "that hold tensors."
        )


def require_density(spec: str, flow: Flow, features: int) -> None:
    """Refuse a flow that does not score rows of that many features; it is left as it was."""
    rows = torch.randn(ROWS, features, generator=torch.Generator().manual_seed(0))
    training = flow.training
    state = {name: value.clone() for name, value in flow.state_dict().items()}
    with (
        named(f"{spec} gives a flow that cannot score rows of {features} features"),
        seeded(),
        torch.no_grad(),
    ):
        shape = tuple(flow.eval().log_prob(rows).shape)
    flow.load_state_dict(state)
    flow.train(training)
    if shape != (ROWS,):
        raise UsageError(
            f"{spec} gives a flow whose log_prob of {ROWS} rows of {features} features has the "
            f"shape {shape}, and not ({ROWS},): give it {features} features in one event."
        )


@contextmanager
def named(trouble: str) -> Iterator[None]:
    """Whatever a user's code raises, in one line.

    Raises:
        UsageError: The trouble, with the exception that was raised.
    """
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split())
        kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        raise UsageError(f"{trouble}: {kind}{said}") from error
