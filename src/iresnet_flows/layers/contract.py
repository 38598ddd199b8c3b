"""What every layer of this package is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor

from iresnet_flows.abstract import AbstractModule

__all__ = ["Layer", "VolumePreserving", "require_layer"]


class Layer(AbstractModule):
    """An invertible module from x ``(B, *event)`` to y, and back; few of them change the event.

    Log-dets are in nats, have the shape (B,) and belong to the direction just taken. A layer of
    your own has the four methods below, and is at home in every host.

    Attributes:
        context_features: The size of the context that the layer asks for, or None.

    Example:
        >>> import math
        >>> import torch
        >>> from iresnet_flows.layers import Layer
        >>> class Doubling(Layer):
        ...     def transform(self, x, context=None):
        ...         return 2 * x
        ...     def invert(self, y, context=None):
        ...         return y / 2
        ...     def forward(self, x, context=None):
        ...         return 2 * x, x.new_full((len(x),), x[0].numel() * math.log(2))
        ...     def inverse(self, y, context=None):
        ...         return y / 2, y.new_full((len(y),), -y[0].numel() * math.log(2))
        >>> y, logabsdet = Doubling()(torch.ones(1, 3))
        >>> logabsdet / 3
        tensor([0.6931])
    """

    context_features: int | None = None

    @property
    def takes_context(self) -> bool | None:
        """Whether it asks for a context; None where it cannot tell, as a layer of another host."""
        return self.context_features is not None

    @property
    def sign(self) -> int:
        """That of det(dy/dx), +1 for the layers of this package."""
        return 1

    def event_of(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """The event of y from that of x: the same, where the layer does not say otherwise."""
        return event

    def event_from(self, event: tuple[int, ...]) -> tuple[int, ...]:
        """The event of x from that of y."""
        return event

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and log|det(dy/dx)|."""

    @abstractmethod
    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and log|det(dx/dy)|."""

    @abstractmethod
    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """y alone, at the price of y alone."""

    def deferred(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        """y, and what gives log|det(dy/dx)| when asked, from the same pass where it can."""
        return self.transform(x, context), lambda: self(x, context)[1]

    @abstractmethod
    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        """x alone, at the price of x alone."""


class VolumePreserving(Layer):
    """A layer whose log-det is zero, so that it consists of `transform` and `invert` alone."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform(x, context), x.new_zeros(len(x))

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.invert(y, context), y.new_zeros(len(y))


def require_layer(layer: Layer) -> Layer:
    """The layer itself, unless it is none: the branch of a block is the likely mistake."""
    if not isinstance(layer, Layer):
        raise TypeError(
            "expected a layer of this package, such as InvertibleResidualBlock(branch) or FFJORD, "
            f"got {type(layer).__name__}."
        )
    return layer
