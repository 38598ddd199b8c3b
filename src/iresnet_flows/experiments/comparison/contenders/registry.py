"""The contenders by name."""

from __future__ import annotations

from collections.abc import Sequence

from iresnet_flows.errors import UsageError, unknown
from iresnet_flows.experiments.comparison.contenders.autoregressive import AUTOREGRESSIVE
from iresnet_flows.experiments.comparison.contenders.continuous import CONTINUOUS
from iresnet_flows.experiments.comparison.contenders.couplings import COUPLINGS
from iresnet_flows.experiments.comparison.contenders.foreign import from_spec, registered
from iresnet_flows.experiments.comparison.contenders.libraries import LIBRARIES
from iresnet_flows.experiments.comparison.contenders.recipes import (
    Contender,
    is_installed,
    require_installed,
)
from iresnet_flows.experiments.comparison.contenders.residual import RESIDUAL
from iresnet_flows.experiments.comparison.contenders.unconstrained import UNCONSTRAINED

__all__ = ["CONTENDERS", "PAPER", "chosen", "installed"]

PAPER = (
    "resnet",
    "nice",
    "i-revnet",
    "realnvp",
    "glow",
    "ffjord",
    "made",
    "maf",
    "i-resnet",
)
BEYOND = (
    "residual-flow",
    "i-densenet",
    "monotone",
    "nsf",
    "cnf",
    "normflows-residual",
    "flowcon",
)
FAMILIES = {
    contender.name: contender
    for module in (
        UNCONSTRAINED,
        COUPLINGS,
        AUTOREGRESSIVE,
        CONTINUOUS,
        RESIDUAL,
        LIBRARIES,
    )
    for contender in module
}
CONTENDERS = {name: FAMILIES[name] for name in (*PAPER, *BEYOND)}


def chosen(models: Sequence[str] | None, foreign: Sequence[str] = ()) -> list[Contender]:
    """The contenders of those names, or the nine of the paper, and then those of a user.

    Arguments:
        models: Names of `CONTENDERS`, or of what installed packages register under the entry
            point group ``iresnet_flows.contenders``.
        foreign: Factories, as ``package.module:factory``.

    Raises:
        UsageError: There is no contender of a name, or its package is not installed.
    """
    others = registered()
    for name in models or ():
        require_known(name, [*CONTENDERS, *others])
    found = [
        CONTENDERS[name] if name in CONTENDERS else from_spec(others[name], name)
        for name in dict.fromkeys(PAPER if models is None else models)
    ]
    for contender in found:
        require_installed(contender)
    return [*found, *(from_spec(spec) for spec in dict.fromkeys(foreign))]


def installed() -> tuple[list[str], list[str]]:
    """The names of those whose libraries are there, and a sentence on each of the others."""
    there = [name for name, each in CONTENDERS.items() if is_installed(each)]
    lacking = [each for name, each in CONTENDERS.items() if name not in there]
    return there, [f"{e.title} is left out: pip install {e.requires} brings it." for e in lacking]


def require_known(name: str, known: Sequence[str]) -> None:
    if name not in known:
        raise UsageError(unknown("model", name, known))
