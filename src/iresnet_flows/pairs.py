"""The latest input and output of a layer, found again only while nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from operator import is_
from typing import Any

import torch
from torch import Tensor

from iresnet_flows.concrete import is_wrapped
from iresnet_flows.layers.contract import Layer
from iresnet_flows.remembered import same

__all__ = ["Cache", "Pair"]


class Cache:
    """A place for the latest pair, which a transform and its inverse share."""

    def __init__(self) -> None:
        self.pair: Pair | None = None

    def keep(
        self,
        layer: Layer,
        context: Tensor | None,
        x: Tensor,
        y: Tensor,
        measure: Callable[[], Tensor],
    ) -> Pair | None:
        """The new pair; None where values are hidden, so that no change could be seen."""
        tensors = dependencies(layer, context, x, y)
        hidden = torch.compiler.is_compiling() or any(map(is_wrapped, tensors))
        self.pair = None if hidden else Pair(layer, x, y, tensors, measure)
        return self.pair

    def find(
        self,
        layer: Layer,
        context: Tensor | None,
        x: Tensor | None = None,
        y: Tensor | None = None,
    ) -> Pair | None:
        """The pair of these very tensors, of which one may be left open, if it still holds."""
        pair = self.pair
        if pair is None or not (x is pair.x or x is None) or not (y is pair.y or y is None):
            return None
        return pair if pair.holds(layer, dependencies(layer, context, pair.x, pair.y)) else None


class Pair:
    """An input of a layer and its output, and the log-det between them once it is asked for.

    It holds while all that it came from is the same. Tensors are compared by value: a version
    counter does not count edits of ``.data``. Everything else, attributes such as ``lipschitz``
    and torch's modes, is compared by identity.

    Arguments:
        layer: The layer.
        x: The input.
        y: The output.
        tensors: All tensors that they depend on, themselves included.
        measure: What gives the log-det from x to y.
    """

    def __init__(
        self,
        layer: Layer,
        x: Tensor,
        y: Tensor,
        tensors: tuple[Tensor, ...],
        measure: Callable[[], Tensor],
    ) -> None:
        self.x = x
        self.y = y
        self.measure: Callable[[], Tensor] | None = measure
        self.values = tuple(t.detach().clone() for t in tensors)
        self.witnesses = witnesses(layer, tensors)
        self.backward = Backward()

    def holds(self, layer: Layer, tensors: tuple[Tensor, ...]) -> bool:
        now = witnesses(layer, tensors)
        return (
            not self.backward.passed
            and len(now) == len(self.witnesses)
            and all(map(is_, now, self.witnesses))
            and all(map(same, tensors, self.values))
        )

    def logabsdet(self) -> Tensor:
        """From x to y, measured once, so that an estimate keeps its draw."""
        if self.measure is not None:
            self.measured, self.measure = self.measure(), None
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


def dependencies(layer: Layer, context: Tensor | None, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    given = (x, y) if context is None else (x, y, context)
    return *given, *layer.parameters(), *layer.buffers()


def witnesses(layer: Layer, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Objects that are other ones as soon as something other than a value has changed."""
    attributes = (
        value
        for module in layer.modules()
        for name, value in vars(module).items()
        if not name.startswith("_")
    )
    return (
        *tensors,
        *(t.requires_grad for t in tensors),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled(tensors[0].device.type),
        *attributes,
    )
