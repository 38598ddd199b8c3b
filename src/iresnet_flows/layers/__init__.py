"""Layers that no host has and the models need, in the contract of the block."""

from iresnet_flows.layers.affine import ElementwiseAffine
from iresnet_flows.layers.contract import Layer
from iresnet_flows.layers.inverted import Inverted

__all__ = ["ElementwiseAffine", "Inverted", "Layer"]
