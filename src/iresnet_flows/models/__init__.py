"""What is built of layers: image densities, and classifiers that can be inverted."""

from iresnet_flows.models.classifiers import (
    InvertibleClassifier,
    Layout,
    i_resnet_classifier,
    i_revnet_classifier,
    vanilla_classifier,
)
from iresnet_flows.models.couplings import AdditiveCoupling
from iresnet_flows.models.hybrid import HybridFlow
from iresnet_flows.models.iresnets import ImageBlocks, i_resnet_flow
from iresnet_flows.models.multiscale import Latents, MultiScaleFlow
from iresnet_flows.models.priors import ConditionalNormal, DiagonalNormal
from iresnet_flows.models.resnets import PreActivationResNet
from iresnet_flows.models.unconstrained import IteratedBlock, UnconstrainedBlock

__all__ = [
    "AdditiveCoupling",
    "ConditionalNormal",
    "DiagonalNormal",
    "HybridFlow",
    "ImageBlocks",
    "InvertibleClassifier",
    "IteratedBlock",
    "Latents",
    "Layout",
    "MultiScaleFlow",
    "PreActivationResNet",
    "UnconstrainedBlock",
    "i_resnet_classifier",
    "i_resnet_flow",
    "i_revnet_classifier",
    "vanilla_classifier",
]
