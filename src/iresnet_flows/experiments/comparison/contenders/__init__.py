"""The contenders and their recipes: one place to read what is compared with what."""

from __future__ import annotations

from iresnet_flows.experiments.comparison.contenders.matching import YARDSTICK, build, width_of
from iresnet_flows.experiments.comparison.contenders.recipes import Contender
from iresnet_flows.experiments.comparison.contenders.registry import (
    CONTENDERS,
    PAPER,
    chosen,
    installed,
)

__all__ = [
    "CONTENDERS",
    "PAPER",
    "YARDSTICK",
    "Contender",
    "build",
    "chosen",
    "installed",
    "width_of",
]
