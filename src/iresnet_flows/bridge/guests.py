"""What a transform of another host is made into: a layer, and what the next host has to know."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from iresnet_flows.checks import check_explicit, check_tensor
from iresnet_flows.concrete import concrete
from iresnet_flows.errors import InverseNotAvailable
from iresnet_flows.layers.contract import Layer

__all__ = ["OTHER", "ForeignLayer", "Guest", "per_sample", "span"]

OTHER = {"forward": "inverse", "inverse": "forward"}


@dataclass(frozen=True)
class Guest:
    """A layer on its way from one host to another.

    Arguments:
        layer: The layer.
        generates: Whether the transform's own forward, or call, takes noise to data. None: it may
            be used either way.
        own: Which side of the layer that is.
        event_dim: The number of dimensions of one event.
        conditional: Whether it takes a context.
    """

    layer: Layer
    generates: bool | None
    own: str
    event_dim: int
    conditional: bool

    @classmethod
    def of(cls, layer: Layer, **known: Any) -> Guest:
        """The guest of which this is known, and otherwise what the layer itself says."""
        says = {
            "generates": None,
            "own": "forward",
            "event_dim": 1,
            "conditional": layer.takes_context is True,
        }
        if isinstance(layer, ForeignLayer):
            says.update(generates=layer.generates, event_dim=layer.event_dim)
        return cls(layer, **{**says, **known})

    def side(
        self, explicit: str | None, *, forward_generates: bool, prefer_generating: bool = False
    ) -> str:
        """The side of the next host that is the layer's own forward.

        Arguments:
            explicit: The side that shall be the own forward of the transform that was given. None:
                the one that keeps the density, or that the host prefers.
            forward_generates: Whether the host's forward takes noise to data.
            prefer_generating: Whether a layer that may be used either way shall do so.
        """
        if explicit is not None:
            check_explicit(explicit)
        generates = prefer_generating if self.generates is None else self.generates
        side = explicit or ("forward" if generates == forward_generates else "inverse")
        return side if self.own == "forward" else OTHER[side]

    def reversed(self) -> Guest:
        """That of the inverse of the transform, whose layer is the same."""
        return replace(self, own=OTHER[self.own])


class ForeignLayer(Layer):
    """A transform of another host as a layer, with its own forward as `forward`.

    Arguments:
        guest: The transform, whose parameters, buffers and mode are those of the layer.

    Attributes:
        generates: Whether that forward takes noise to data.
        missing: What the host raises where a transform lacks a side.
    """

    generates: ClassVar[bool]
    missing: ClassVar[tuple[type[Exception], ...]] = (NotImplementedError,)

    def __init__(self, guest: Any) -> None:
        super().__init__()
        self.guest = guest

    @abstractmethod
    def evaluate(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Any]:
        """The value of one side and its log-det, as the host gives them."""

    def value(self, side: str, x: Tensor, context: Tensor | None) -> Tensor:
        """The value alone, for hosts in which it is cheaper."""
        return self.evaluate(side, x, context)[0]

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._both("forward", x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._both("inverse", y, context)

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self._alone("forward", x, context)

    def deferred(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        # Hosts give both at once, and what is random in a transform is drawn once.
        y, logabsdet = self(x, context)
        return y, lambda: logabsdet

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self._alone("inverse", y, context)

    @property
    def takes_context(self) -> bool | None:
        return None

    @property
    def event_dim(self) -> int:
        """The number of dimensions of one event, 1 where the host does not say."""
        return 1

    @property
    def sign(self) -> int:
        raise NotImplementedError(
            f"{self._name()} does not say whether it increases: no cdf can be taken through it."
        )

    def _both(self, side: str, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        check_tensor("x", x)
        if not len(x):  # most hosts cannot take an empty batch
            return x.clone(), x.new_zeros(0)
        value, ladj = self._ask(self.evaluate, side, x, context)
        return self._require_shape(value, x), per_sample(ladj, x)

    def _alone(self, side: str, x: Tensor, context: Tensor | None) -> Tensor:
        check_tensor("x", x)
        if not len(x):
            return x.clone()
        return self._require_shape(self._ask(self.value, side, x, context), x)

    def placed(self, context: Tensor, x: Tensor) -> Tensor:
        """The context with a row for each sample, as most hosts want it."""
        shared = context.dim() == 1 or (context.dim() == 2 and len(context) == 1)
        return context.reshape(1, -1).expand(len(x), -1) if shared else context

    def _ask(self, question: Any, side: str, x: Tensor, context: Tensor | None) -> Any:
        if context is not None:
            context = self.placed(context, x)
        try:
            return question(side, x, context)
        except self.missing as error:
            reason = str(error).strip("'\".") or type(error).__name__
            raise InverseNotAvailable(
                f"{self._name()} cannot compute its {side}: {reason}. Use it only where its "
                f"{OTHER[side]} is asked for, or take a transform that has both sides."
            ) from error

    def _require_shape(self, value: Any, x: Tensor) -> Tensor:
        shape = value.shape if isinstance(value, Tensor) else type(value).__name__
        if shape != x.shape:
            raise ValueError(
                f"{self._name()} makes {shape} of {x.shape}. A transform crosses to another host "
                "only if it keeps the shape of an event: reshape in the host itself."
            )
        return value

    def _name(self) -> str:
        kind = type(self.guest)
        return f"{kind.__name__} of {kind.__module__.partition('.')[0]}"


def per_sample(ladj: Any, x: Tensor) -> Tensor:
    """A log-det of a host, maybe one number for all samples and of another dtype, as (B,)."""
    return torch.as_tensor(ladj, dtype=x.dtype, device=x.device).expand(len(x))


def span(x: Tensor) -> str:
    """The range of the values, as messages say it."""
    low, high = (float(end) for end in concrete(x).aminmax())
    return f"[{low:.6g}, {high:.6g}]"
