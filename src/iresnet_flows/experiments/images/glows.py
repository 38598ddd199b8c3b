"""Glow as a classifier, made of the layers of normflows."""

from __future__ import annotations

from typing import Any

from iresnet_flows.experiments.extras import optional
from iresnet_flows.experiments.images.recipes import Shape
from iresnet_flows.layers import ActNorm, Inverted, Layer, Stack
from iresnet_flows.models import InvertibleClassifier, Layout

__all__ = ["glow_classifier"]


def glow_classifier(
    shape: Shape, classes: int, layout: Layout, width: int, affine: bool
) -> InvertibleClassifier:
    """The steps of Glow between the squeezes of a layout; no log-det is used.

    The ActNorm that begins a step is ours: that of normflows starts from what one device sees.

    Arguments:
        shape: Channels, height and width of an image.
        classes: The number of classes.
        layout: The stages.
        width: The channels within the nets of the couplings, convolutions of sizes 3, 1 and 3.
        affine: Whether a step is that of normflows' `GlowBlock`, a learned 1x1 convolution and
            an affine coupling. Otherwise its coupling is additive and the halves of the channels
            change places.

    Raises:
        MissingExtra: normflows is not installed.
        ValueError: A size is out of range.

    References:
        Kingma & Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018.
    """
    nf = optional("normflows", "normflows", "normflows")
    from iresnet_flows.bridge.normflows import NormflowsLayer

    def coupling(channels: int) -> list[Any]:
        if affine:
            *parts, _norm = nf.flows.GlowBlock(channels, width, use_lu=False).flows
            return parts
        ends = (channels + 1) // 2, channels // 2
        net = nf.nets.ConvNet2d((ends[0], width, width, ends[1]), (3, 1, 3))
        swap = nf.flows.Permute(channels, mode="swap")
        return [nf.flows.AffineCouplingBlock(net, scale=False), swap]

    def block(channels: int, _stage: int) -> Layer:
        step = NormflowsLayer(nf.flows.Composite(coupling(channels)))
        # normflows takes data to noise by its inverse.
        return Stack([ActNorm(channels), Inverted(step)])

    return layout.classifier(shape, classes, block)
