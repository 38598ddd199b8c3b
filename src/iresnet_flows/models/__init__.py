"""What is built of layers: image densities, and classifiers that can be inverted."""

from iresnet_flows.models.hybrid import HybridFlow
from iresnet_flows.models.iresnets import ImageBlocks, i_resnet_flow
from iresnet_flows.models.multiscale import Latents, MultiScaleFlow
from iresnet_flows.models.priors import ConditionalNormal, DiagonalNormal

__all__ = [
    "ConditionalNormal",
    "DiagonalNormal",
    "HybridFlow",
    "ImageBlocks",
    "Latents",
    "MultiScaleFlow",
    "i_resnet_flow",
]
