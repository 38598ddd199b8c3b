"""Layers one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from torch import Tensor, nn

from iresnet_flows.layers.contract import Layer, require_layer

__all__ = ["Stack"]


class Stack(Layer):
    """The composition of layers, the first of them first.

    Arguments:
        layers: The layers; those that ask for a context are given the one of the stack.

    Raises:
        TypeError: One of them is no `Layer`.
        ValueError: They ask for contexts of different sizes.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP
        >>> from iresnet_flows.layers import ActNorm
        >>> stack = Stack([ActNorm(2), InvertibleResidualBlock(LipschitzMLP(2))])
        >>> y, logabsdet = stack(torch.randn(5, 2))
        >>> y.shape, logabsdet.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(require_layer(layer) for layer in layers)
        contexts = [layer.context_features for layer in self.each()]
        sizes = {size for size in contexts if size is not None}
        if len(sizes) > 1:
            raise ValueError(
                f"the layers of a stack share one context, and these ask for {sorted(sizes)} "
                "features."
            )
        self.context_features = sizes.pop() if sizes else None

    @property
    def sign(self) -> int:
        sign = 1
        for layer in self.each():
            sign *= layer.sign
        return sign

    def event_of(self, event: tuple[int, ...]) -> tuple[int, ...]:
        for layer in self.each():
            event = layer.event_of(event)
        return event

    def event_from(self, event: tuple[int, ...]) -> tuple[int, ...]:
        for layer in reversed(self.each()):
            event = layer.event_from(event)
        return event

    @property
    def takes_context(self) -> bool | None:
        answers = [layer.takes_context for layer in self.each()]
        return True if any(answers) else None if None in answers else False

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for layer in self.each():
            x, log_abs_det = layer(x, self.of(layer, context))
            total = total + log_abs_det
        return x, total

    def inverse(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = y.new_zeros(len(y))
        for layer in reversed(self.each()):
            y, log_abs_det = layer.inverse(y, self.of(layer, context))
            total = total + log_abs_det
        return y, total

    def transform(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in self.each():
            x = layer.transform(x, self.of(layer, context))
        return x

    def deferred(
        self, x: Tensor, context: Tensor | None = None
    ) -> tuple[Tensor, Callable[[], Tensor]]:
        start, measures = x, []
        for layer in self.each():
            x, measure = layer.deferred(x, self.of(layer, context))
            measures.append(measure)
        return x, lambda: sum((measure() for measure in measures), start.new_zeros(len(start)))

    def invert(self, y: Tensor, context: Tensor | None = None) -> Tensor:
        for layer in reversed(self.each()):
            y = layer.invert(y, self.of(layer, context))
        return y

    def each(self) -> list[Layer]:
        return cast("list[Layer]", list(self.layers))

    def of(self, layer: Layer, context: Tensor | None) -> Tensor | None:
        """The context, but for a layer that takes none while another does."""
        refuses = layer.takes_context is False and self.takes_context is not False
        return None if refuses else context
