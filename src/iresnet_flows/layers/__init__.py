"""Layers that no host has and the models need, in the contract of the block."""

from iresnet_flows.layers.actnorm import ActNorm
from iresnet_flows.layers.affine import ElementwiseAffine
from iresnet_flows.layers.contract import Layer
from iresnet_flows.layers.inverted import Inverted
from iresnet_flows.layers.logit import Logit
from iresnet_flows.layers.shapes import Flatten, InjectivePadding, Squeeze
from iresnet_flows.layers.stacks import Stack

__all__ = [
    "ActNorm",
    "ElementwiseAffine",
    "Flatten",
    "InjectivePadding",
    "Inverted",
    "Layer",
    "Logit",
    "Squeeze",
    "Stack",
]
