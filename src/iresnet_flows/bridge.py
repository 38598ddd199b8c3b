"""A layer of this package in any host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iresnet_flows.layers.contract import Layer

if TYPE_CHECKING:
    from iresnet_flows.nflows import LayerTransform
    from iresnet_flows.normflows import LayerFlow
    from iresnet_flows.pyro import ConditionalLayerTransformModule, LayerTransformModule

__all__ = ["to_nflows", "to_normflows", "to_pyro"]


def to_nflows(layer: Layer, explicit: str = "forward") -> LayerTransform:
    """The layer as an nflows `Transform`, data to noise being the layer itself.

    Arguments:
        layer: A layer of this package, such as `FFJORD`.
        explicit: The side that is the layer itself, ``"forward"`` or ``"inverse"``.

    Raises:
        TypeError: It is not a layer.
        MissingExtra: nflows is not installed.

    Example:
        >>> from iresnet_flows.ffjord import FFJORD
        >>> transform = to_nflows(FFJORD(2))
    """
    from iresnet_flows.nflows import LayerTransform

    return LayerTransform(require_layer(layer), explicit)


def to_pyro(
    layer: Layer, explicit: str = "forward", event_dim: int = 1
) -> LayerTransformModule | ConditionalLayerTransformModule:
    """The layer as a Pyro `TransformModule`, conditional where the layer takes a context.

    Arguments:
        layer: A layer of this package, such as `FFJORD`.
        explicit: The side that is the layer itself: ``"forward"``, base to sample, for guides,
            or ``"inverse"`` for density estimation.
        event_dim: The number of dimensions of one event.

    Raises:
        TypeError: It is not a layer.
        MissingExtra: Pyro is not installed.

    Example:
        >>> from iresnet_flows.ffjord import FFJORD
        >>> transform = to_pyro(FFJORD(2))
    """
    from iresnet_flows.pyro import ConditionalLayerTransformModule, LayerTransformModule

    layer = require_layer(layer)
    if layer.context_features is None:
        return LayerTransformModule(layer, explicit, event_dim)
    return ConditionalLayerTransformModule(layer, explicit, event_dim)


def to_normflows(layer: Layer, explicit: str = "inverse") -> LayerFlow:
    """The layer as a normflows `Flow`, data to latent being the layer itself.

    Arguments:
        layer: A layer of this package, such as `FFJORD`.
        explicit: The side that is the layer itself, ``"inverse"`` or ``"forward"``.

    Raises:
        TypeError: It is not a layer.
        MissingExtra: normflows is not installed.

    Example:
        >>> from iresnet_flows.ffjord import FFJORD
        >>> flow = to_normflows(FFJORD(2))
    """
    from iresnet_flows.normflows import LayerFlow

    return LayerFlow(require_layer(layer), explicit)


def require_layer(layer: Layer) -> Layer:
    if not isinstance(layer, Layer):
        raise TypeError(
            f"expected a layer of this package, an iresnet_flows.layers.Layer such as FFJORD or "
            f"InvertibleResidualBlock, got {type(layer).__name__}."
        )
    return layer
