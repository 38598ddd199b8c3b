"""The latest input and output of a layer, found again only while nothing has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_flows.concrete import is_recorded, is_wrapped
from iresnet_flows.layers.contract import Layer
from iresnet_flows.remembered import same
from iresnet_flows.stateless import TORCH_ATTRIBUTES

__all__ = ["Cache", "Pair"]

NOT_COMPARED = TORCH_ATTRIBUTES - {"training"}
"""The attributes of a module that may change while a pair holds."""


class Cache:
    """A place for the latest pair, which a transform and its inverse share."""

    def __init__(self) -> None:
        self.pair: Pair | None = None

    def keep(self, pair: Pair) -> Pair | None:
        """The pair; None where values are hidden, or Pyro draws some, as no change would show."""
        drawn = any(getattr(module, "_pyro_samples", None) for module in pair.modules)
        if drawn or any(map(is_wrapped, pair.tensors)):
            self.pair = None
            return None
        pair.note_values()  # first, for another thread may find it at once
        self.pair = pair
        return pair

    def find(
        self,
        layer: Layer,
        context: Tensor | None,
        x: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Pair | None:
        """The pair of these very tensors, of which one may be left open, if it still holds."""
        pair = None if is_recorded() else self.pair
        if pair is None or not (x is pair.x or x is None) or not (y is pair.y or y is None):
            return None
        return pair if layer is pair.layer and context is pair.context and pair.holds() else None


class Pair:
    """An input of a layer and its output, and the log-det between them once it is asked for.

    It holds while all that it came from is the same. Tensors are compared by value, for a version
    counter does not count edits of ``.data``, and by version, for an edit that adds zeros may add
    to the graph. Everything else, attributes such as ``lipschitz``, hooks and torch's modes, is
    compared by identity.

    Arguments:
        layer: The layer.
        context: Its context, or None.
        x: The input.
        y: The output.
        measure: What gives the log-det from x to y.
    """

    def __init__(
        self,
        layer: Layer,
        context: Tensor | None,
        x: Tensor,
        y: Tensor,
        measure: Callable[[], Tensor],
    ) -> None:
        self.layer = layer
        self.context = context
        self.x = x
        self.y = y
        self.measure: Callable[[], Tensor] | None = measure
        self.modules = tuple(layer.modules())
        self.members = members(self.modules)
        given = (x, y) if context is None else (x, y, context)
        self.tensors = (*given, *(m for m in self.members if isinstance(m, Tensor)))
        self.circumstances = circumstances(self.tensors)
        self.backward = Backward()

    def note_values(self) -> None:
        self.values = tuple(t.detach().clone() for t in self.tensors)
        self.versions = versions(self.tensors)

    def holds(self) -> bool:
        now = members(self.modules)
        return (
            not self.backward.passed
            and len(now) == len(self.members)
            and all(map(is_, now, self.members))
            and circumstances(self.tensors) == self.circumstances
            and versions(self.tensors) == self.versions
            and all(map(same, self.tensors, self.values))
        )

    def logabsdet(self) -> Tensor:
        """From x to y, measured once, so that an estimate keeps its draw."""
        measure = self.measure  # which another thread may set to None
        if measure is not None:
            self.measured, self.measure = measure(), None
            self.watch(self.measured)
        return self.measured

    def watch(self, result: Tensor) -> None:
        """Drop the pair once a backward pass may have freed the graph of this result."""
        if result.requires_grad:
            result.register_hook(self.backward)


class Backward:
    """A hook that notes a backward pass; it holds no tensor, and so keeps none alive."""

    __torch_unserializable__ = True  # saving the tensor without it is fine
    passed = False

    def __call__(self, _: Tensor) -> None:
        self.passed = True


def members(modules: Sequence[nn.Module]) -> list[Any]:
    """Objects that are other ones as soon as something other than a value has changed."""
    found: list[Any] = []
    for module in modules:
        found += module._parameters.values()
        found += module._buffers.values()
        found += module._modules.values()
        found += module._forward_pre_hooks.values()
        found += module._forward_hooks.values()
        found += [value for name, value in vars(module).items() if name not in NOT_COMPARED]
    return found


def circumstances(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """The modes of torch, and which tensors ask for a gradient."""
    kind = tensors[0].device.type
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None,
        *[t.requires_grad for t in tensors],
    )


def versions(tensors: Sequence[Tensor]) -> tuple[int | None, ...]:
    """How often each was edited in place; tensors of inference mode do not count it."""
    return tuple(None if t.is_inference() else t._version for t in tensors)
