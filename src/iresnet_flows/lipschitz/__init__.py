"""Bounding g: activations of proven slope, certified norms, branches that know their bound."""

from iresnet_flows.lipschitz.activations import Activation, make_activation
from iresnet_flows.lipschitz.branches import Branch, Residual
from iresnet_flows.lipschitz.claimed import ClaimedBranch
from iresnet_flows.lipschitz.convnet import LipschitzConvNet
from iresnet_flows.lipschitz.convolution_norms import convolution_norm_bound
from iresnet_flows.lipschitz.densenet import LipschitzDenseNet
from iresnet_flows.lipschitz.elementwise import LipschitzElementwise
from iresnet_flows.lipschitz.mlp import LipschitzMLP
from iresnet_flows.lipschitz.norms import spectral_norm_bound
from iresnet_flows.lipschitz.stated import Elementwise

__all__ = [
    "Activation",
    "Branch",
    "ClaimedBranch",
    "Elementwise",
    "LipschitzConvNet",
    "LipschitzDenseNet",
    "LipschitzElementwise",
    "LipschitzMLP",
    "Residual",
    "convolution_norm_bound",
    "make_activation",
    "spectral_norm_bound",
]
