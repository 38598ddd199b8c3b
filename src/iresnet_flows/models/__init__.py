"""What is built of layers: image densities, and classifiers that can be inverted."""

from iresnet_flows.models.classifiers import (
    InvertibleClassifier,
    Layout,
    i_resnet_classifier,
    i_revnet_classifier,
    vanilla_classifier,
)
from iresnet_flows.models.couplings import AdditiveCoupling
from iresnet_flows.models.resnets import PreActivationResNet
from iresnet_flows.models.unconstrained import UnconstrainedBlock

__all__ = [
    "AdditiveCoupling",
    "InvertibleClassifier",
    "Layout",
    "PreActivationResNet",
    "UnconstrainedBlock",
    "i_resnet_classifier",
    "i_revnet_classifier",
    "vanilla_classifier",
]
