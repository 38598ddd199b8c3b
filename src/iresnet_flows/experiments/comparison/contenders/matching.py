"""Contenders made equal in size or in time."""

from __future__ import annotations

import math
from functools import cache, partial
from typing import NamedTuple
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

__all__ = ["YARDSTICK", "build", "width_of"]

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
    if match == "none" or contender.name == YARDSTICK:
        return contender.width
    found = (matched_size if match == "parameters" else matched_time)(contender, features)
    if found.fault is not None:
        warn(found.fault, UnmatchedContender, stacklevel=2)
    return found.width


class Matched(NamedTuple):
    """The nearest width, None for a family without one, and what is wrong with it, or None."""

    width: int | None
    fault: str | None


@cache
def matched_size(contender: Contender, features: int) -> Matched:
    def size(family: Contender, width: int) -> int:
        return parameters(partial(family.make, features), width)

    target = size(CONTENDERS[YARDSTICK], own_width(CONTENDERS[YARDSTICK]))
    width = contender.width
    if width is not None:
        width = fitting_width(partial(contender.make, features), target)
    found = size(contender, width or 0)
    near = abs(found - target) <= SIZE_SLACK * target
    return Matched(
        width, None if near else fault(contender, width, f"{found} parameters", f"{target}")
    )


@cache
def matched_time(contender: Contender, features: int) -> Matched:
    target, width = time_of_yardstick(features), contender.width
    if width is None:
        seconds = step_seconds(contender.make(features, 0), features)
    else:
        width, seconds = width_in_time(partial(contender.make, features), features, target)
    near = abs(math.log(seconds / target)) <= math.log(TIME_SLACK)
    said = f"{1e3 * seconds:.3g} ms a step"
    return Matched(
        width, None if near else fault(contender, width, said, f"{1e3 * target:.3g} ms")
    )


@cache
def time_of_yardstick(features: int) -> float:
    yardstick = CONTENDERS[YARDSTICK]
    return step_seconds(yardstick.make(features, own_width(yardstick)), features)


def own_width(contender: Contender) -> int:
    return contender.width or 0


def fault(contender: Contender, width: int | None, found: str, target: str) -> str:
    nearest = "" if width is None else f" at the width {width}, the nearest"
    return (
        f"{contender.title} cannot be matched: {found}{nearest}, where i-ResNet has {target}. "
        "Read its numbers with that in mind, or leave it out of --models."
    )
