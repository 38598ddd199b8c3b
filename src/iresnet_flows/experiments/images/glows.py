"""Glow as a classifier, made of the layers of normflows."""

from __future__ import annotations

from iresnet_flows.experiments.extras import optional
from iresnet_flows.experiments.images.recipes import Shape
from iresnet_flows.layers import Inverted, Layer
from iresnet_flows.models import InvertibleClassifier, Layout

__all__ = ["glow_classifier"]


def glow_classifier(
    shape: Shape, classes: int, layout: Layout, width: int, affine: bool
) -> InvertibleClassifier:
    """The steps of Glow between the squeezes of a layout; no log-det is used.

    Arguments:
        shape: Channels, height and width of an image.
        classes: The number of classes.
        layout: The stages.
        width: The channels within the nets of the couplings, convolutions of sizes 3, 1 and 3.
        affine: Whether a step is normflows' `GlowBlock`, an affine coupling, a learned 1x1
            convolution and ActNorm. Otherwise its coupling is additive and the halves of the
            channels change places.

    Raises:
        MissingExtra: normflows is not installed.
        ValueError: A size is out of range.

    References:
        Kingma & Dhariwal, Glow: Generative Flow with Invertible 1x1 Convolutions, 2018.
    """
    nf = optional("normflows", "normflows", "normflows")
    from iresnet_flows.bridge.normflows import NormflowsLayer

    def block(channels: int, _stage: int) -> Layer:
        if affine:
            step = nf.flows.GlowBlock(channels, width, use_lu=False)
        else:
            ends = (channels + 1) // 2, channels // 2
            net = nf.nets.ConvNet2d((ends[0], width, width, ends[1]), (3, 1, 3))
            step = nf.flows.Composite(
                [
                    nf.flows.AffineCouplingBlock(net, scale=False),
                    nf.flows.Permute(channels, mode="swap"),
                    nf.flows.ActNorm((channels, 1, 1)),
                ]
            )
        return Inverted(NormflowsLayer(step))  # normflows takes data to noise by its inverse

    return layout.classifier(shape, classes, block)
