"""The inverse of a layer as a layer."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from iresnet_flows.layers.actnorm import measuring
from iresnet_flows.layers.contract import Layer, require_layer

__all__ = ["Inverted"]


class Inverted(Layer):
    """A layer whose `forward` is another one's `inverse`, and the other way around.

    An inverted residual block is solved in `forward` and explicit in `inverse`. Alternating both
    kinds gives implicit flows, which change volume up and down alike.

    Arguments:
        layer: The other layer.

    Raises:
        TypeError: The layer is none.

    References:
        Lu et al., Implicit Normalizing Flows, 2021.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> layer, x = Inverted(block), torch.randn(5, 2)
        >>> torch.equal(layer.invert(x), block.transform(x))
        True
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = require_layer(layer)
        self.context_features = layer.context_features

    @property
    def takes_context(self) -> bool | None:
        return self.layer.takes_context

    @property
    def sign(self) -> int:
        return self.layer.sign

    def event_of(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return self.layer.event_from(event)

    def event_from(self, event: tuple[int, ...]) -> tuple[int, ...]:
        return self.layer.event_of(event)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer.inverse(x, context)

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.layer(y, context)

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layer.invert(x, context)

    def deferred(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        # Explicit where a second solve would not be.
        y = self.layer.invert(x, context)
        return y, lambda: -self.measured(y, context)

    def measured(self, y: Tensor, context: Tensor | None) -> Tensor:
        with measuring():
            logabsdet: Tensor = self.layer(y, context)[1]
        return logabsdet

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layer.transform(y, context)
