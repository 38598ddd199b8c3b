"""Invertible residual networks as native layers of the normalizing-flow libraries."""

from iresnet_flows.blocks.cayley import CayleyBlock
from iresnet_flows.blocks.residual import InvertibleResidualBlock
from iresnet_flows.errors import BrokenLipschitzClaim, InverseNotConverged
from iresnet_flows.inverse import Anderson, FixedPoint, Newton, Solution
from iresnet_flows.lipschitz import (
    ClaimedBranch,
    LipschitzConvNet,
    LipschitzDenseNet,
    LipschitzMLP,
)
from iresnet_flows.logdet import Exact, LogDet, PowerSeries, RussianRoulette

__version__ = "0.1.0"

__all__ = [
    "Anderson",
    "BrokenLipschitzClaim",
    "CayleyBlock",
    "ClaimedBranch",
    "Exact",
    "FixedPoint",
    "InverseNotConverged",
    "InvertibleResidualBlock",
    "LipschitzConvNet",
    "LipschitzDenseNet",
    "LipschitzMLP",
    "LogDet",
    "Newton",
    "PowerSeries",
    "RussianRoulette",
    "Solution",
]
