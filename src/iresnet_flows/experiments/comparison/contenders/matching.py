"""Contenders made equal in size or in time."""

from __future__ import annotations

import math
from functools import cache, partial
from warnings import warn

from nflows.flows.base import Flow

from iresnet_flows.errors import UnmatchedContender
from iresnet_flows.experiments.comparison.contenders.recipes import (
    Contender,
    require_features,
    require_installed,
)
from iresnet_flows.experiments.comparison.contenders.registry import CONTENDERS
from iresnet_flows.experiments.comparison.contenders.stopwatch import step_seconds, width_in_time
from iresnet_flows.experiments.comparison.results import Match
from iresnet_flows.experiments.widths import fitting_width, parameters

__all__ = ["build", "width_of"]

YARDSTICK = "i-resnet"
SIZE_SLACK = 0.1
TIME_SLACK = 1.25


def build(contender: Contender, features: int, match: Match = "parameters") -> Flow:
    """The flow of the width that `width_of` finds.

    Raises:
        UsageError: The family does not exist at so few features, or its package is missing.
    """
    width = width_of(contender, features, match)
    return contender.make(features, width or 0)


def width_of(contender: Contender, features: int, match: Match = "parameters") -> int | None:
    """The width at which a contender is compared; None where it has no free width.

    * ``parameters``: the trainable parameters are nearest to those of i-ResNet at its own width.
    * ``time``: a training step of the untrained flow, for 256 rows on one thread of the CPU,
      takes about as long as one of i-ResNet at its own width. It is measured once a process.
    * ``none``: the contender's own width.

    Arguments:
        contender: It.
        features: The dimension d of the data.
        match: What is made equal.

    Raises:
        UsageError: The family does not exist at so few features, or its package is missing.

    Warns:
        UnmatchedContender: No width comes within 10 % of the parameters, or within a factor of
            1.25 of the time.
    """
    require_features(contender, features)
    require_installed(contender)
    if contender.width is None or match == "none" or contender.name == YARDSTICK:
        return contender.width
    return (matching_size if match == "parameters" else matching_time)(contender, features)


@cache
def matching_size(contender: Contender, features: int) -> int:
    def size(family: Contender, width: int) -> int:
        return parameters(partial(family.make, features), width)

    target = size(CONTENDERS[YARDSTICK], own_width(CONTENDERS[YARDSTICK]))
    width = fitting_width(partial(contender.make, features), target)
    found = size(contender, width)
    if abs(found - target) > SIZE_SLACK * target:
        warn_of(contender, f"{found} parameters at the width {width}", f"{target}")
    return width


@cache
def matching_time(contender: Contender, features: int) -> int:
    target = time_of_yardstick(features)
    width, seconds = width_in_time(partial(contender.make, features), features, target)
    if abs(math.log(seconds / target)) > math.log(TIME_SLACK):
        found = f"{1e3 * seconds:.3g} ms a step at the width {width}"
        warn_of(contender, found, f"{1e3 * target:.3g} ms")
    return width


@cache
def time_of_yardstick(features: int) -> float:
    yardstick = CONTENDERS[YARDSTICK]
    return step_seconds(yardstick.make(features, own_width(yardstick)), features)


def own_width(contender: Contender) -> int:
    return contender.width or 0


def warn_of(contender: Contender, found: str, target: str) -> None:
    warn(
        f"{contender.title} cannot be matched: {found}, the nearest, where i-ResNet has {target}. "
        "Read its numbers with that in mind, or leave it out of --models.",
        UnmatchedContender,
        stacklevel=4,
    )
