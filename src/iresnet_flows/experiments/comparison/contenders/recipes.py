"""What a contender is."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, Protocol, runtime_checkable

from nflows.flows.base import Flow

from iresnet_flows import __version__
from iresnet_flows.errors import UsageError

__all__ = ["Contender", "is_installed", "require_features", "require_installed"]


@runtime_checkable
class Sourced(Protocol):
    """What makes flows from code that may change between two runs."""

    def source(self) -> str:
        """That code."""


@dataclass(frozen=True)
class Contender:
    """A family of flows with one free width, or with none.

    Arguments:
        name: What `--models` calls it.
        title: What tables call it.
        recipe: The architecture in a sentence.
        make: Gives the flow from the number of features and the width, and, where it has a third
            parameter, `context_features`, the flow given a context.
        learning_rate: That of AdamW at the start; it decays linearly over the budget. Chosen among
            0.003, 0.01 and 0.03 by the validation losses of short trainings on pinwheel,
            checkerboard, digits and power (docs/studies/rates.py); that of ResNet, whose loss is
            of no density, among 0.001, 0.003 and 0.005 on two-moons and digits.
        weight_decay: That of AdamW. Those of Glow and i-ResNet were chosen among 0, 0.3 and 1 by
            the validation loss on digits; ResNet and the residual flows of this package take
            i-ResNet's, the others Glow's.
        least_features: The smallest dimension for which the family exists.
        width: Its own width, where nothing is matched; None for a family without a free width.
        origin: ``paper`` for those of Behrmann et al., 2019 (Tables 1 and 4), ``beyond`` for later
            ones and for other libraries, ``yours`` for those of a user.
        remark: What a reader of its numbers must know, or None.
        density: Whether its `log_prob` is a likelihood.
        after_step: What its library asks for after each step of the optimiser, or None.
        requires: The package that must be installed beside those of `experiments`, or None.
    """

    name: str
    title: str
    recipe: str
    make: Callable[..., Flow]
    learning_rate: float = 1e-3
    weight_decay: float = 0.3
    least_features: int = 1
    width: int | None = 32
    origin: Literal["paper", "beyond", "yours"] = "paper"
    remark: str | None = None
    density: bool = True
    after_step: Callable[[Flow], None] | None = None
    requires: str | None = None

    def digest(self, width: int | None) -> str:
        """A few letters that change with what its runs depend on, a user's module included."""
        source = self.make.source() if isinstance(self.make, Sourced) else ""
        parts = (self.recipe, self.learning_rate, self.weight_decay, width, __version__, source)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]

    def conditional(self, features: int, width: int, context_features: int) -> Flow | None:
        """The flow of rows given a context, or None where the recipe knows of none."""
        if "context_features" not in inspect.signature(self.make).parameters:
            return None
        return self.make(features, width, context_features)


def is_installed(contender: Contender) -> bool:
    """Whether its library is there."""
    return contender.requires is None or find_spec(contender.requires) is not None


def require_installed(contender: Contender) -> None:
    """Refuse a contender whose library is not there.

    Raises:
        UsageError: Its package cannot be imported.
    """
    if not is_installed(contender):
        package = contender.requires
        raise UsageError(
            f"{contender.title} needs {package}, which is not installed: pip install {package}, "
            f"or leave {contender.name} out of --models."
        )


def require_features(contender: Contender, features: int) -> None:
    """Refuse data of too few columns.

    Raises:
        UsageError: The family does not exist at so few features.
    """
    if features < contender.least_features:
        raise UsageError(
            f"{contender.title} needs at least {contender.least_features} columns, the data have "
            f"{features}: leave it out of --models."
        )
