"""What the adapters of a block have in common in every host."""

from __future__ import annotations

from typing import Any, cast

from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.layers.contract import Layer, require_layer

__all__ = ["BlockAdapter"]


class BlockAdapter:
    """The layer of an adapter under the name of ``block``, to be read and to be replaced.

    A property alone would not do: `torch.nn.Module` registers a module that is assigned under its
    name, beside the one in use.
    """

    layer: Layer

    @property
    def block(self) -> InvertibleResidualBlock:
        return cast("InvertibleResidualBlock", self.layer)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "block":
            name, value = "layer", require_layer(value)
        super().__setattr__(name, value)
