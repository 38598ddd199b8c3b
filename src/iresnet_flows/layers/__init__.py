"""Layers that no host has and the models need, in the contract of the block."""

from iresnet_flows.layers.affine import ElementwiseAffine
from iresnet_flows.layers.contract import Layer

__all__ = ["ElementwiseAffine", "Layer"]
