"""Every exception and warning of the package, each with the wording of what to do next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "BrokenLipschitzClaim",
    "DataError",
    "InfiniteVariance",
    "InputOutsideDomain",
    "IntegrationFailed",
    "InverseNotAvailable",
    "InverseNotConverged",
    "InverseNotConvergedWarning",
    "MissingExtra",
    "SeriesNotConvergedWarning",
    "StorageError",
    "UnmatchedContender",
    "UsageError",
    "unknown",
]


class InverseNotAvailable(NotImplementedError):
    """A side of another host's transform that it cannot compute; the message gives its reason."""


class InputOutsideDomain(ValueError):
    """A value outside of what a transform takes; the message says what that is.

    Example:
        >>> import torch
        >>> from iresnet_flows.layers import Logit
        >>> Logit().transform(torch.tensor([[2.0]]))
        Traceback (most recent call last):
        ...
        iresnet_flows.errors.InputOutsideDomain: x must lie in [0, 1], as pixels / 255 do, got ...
    """


class InverseNotConverged(RuntimeError):
    """An inverse whose error bound is above the tolerance; the message says by how much.

    Example:
        >>> import torch
        >>> from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2), solver=FixedPoint(max_steps=1))
        >>> block.invert(torch.randn(5, 2))
        Traceback (most recent call last):
        ...
        iresnet_flows.errors.InverseNotConverged: The inverse stopped after 1 steps with 5 of 5 ...
    """


class InverseNotConvergedWarning(UserWarning):
    """The same as `InverseNotConverged`, from a solver that was told to warn.

    Example:
        >>> import warnings
        >>> import torch
        >>> from iresnet_flows import FixedPoint, InvertibleResidualBlock, LipschitzMLP
        >>> block = InvertibleResidualBlock(LipschitzMLP(2))
        >>> block.solver = FixedPoint(max_steps=1, on_failure="warn")
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     _ = block.invert(torch.randn(5, 2))
        >>> print(caught[0].message)
        The inverse stopped after 1 steps with 5 of 5 samples above tolerance ...
    """


class IntegrationFailed(RuntimeError):
    """A differential equation that could not be integrated; the message says what to change."""


class SeriesNotConvergedWarning(UserWarning):
    """A log-det series that was cut before its certified tail met the tolerance.

    Example:
        >>> import warnings
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP, PowerSeries
        >>> short = PowerSeries(tolerance=1e-9, max_terms=2)
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     _ = InvertibleResidualBlock(LipschitzMLP(2), short)(torch.randn(5, 2))
        >>> print(caught[0].message)
        The log-det series was cut after 2 terms with a certified tail of ...
    """


class BrokenLipschitzClaim(ValueError):
    """A module that is steeper than its author claimed; the message says where and by how much.

    Example:
        >>> import torch
        >>> from iresnet_flows import ClaimedBranch, InvertibleResidualBlock
        >>> half = torch.nn.Linear(2, 2, bias=False)
        >>> _ = torch.nn.init.eye_(half.weight)
        >>> InvertibleResidualBlock(ClaimedBranch(half, lipschitz=0.5))(torch.eye(2))
        Traceback (most recent call last):
        ...
        iresnet_flows.errors.BrokenLipschitzClaim: the module was claimed to have the ...
    """


class InfiniteVariance(ValueError):
    """A random series whose spread nothing bounds; the message says which numbers would do.

    Example:
        >>> import torch
        >>> from iresnet_flows import InvertibleResidualBlock, LipschitzMLP, RussianRoulette
        >>> roulette = RussianRoulette(continuation=1e-6)
        >>> block = InvertibleResidualBlock(LipschitzMLP(2, lipschitz=0.9), roulette)
        >>> block(torch.randn(5, 2))
        Traceback (most recent call last):
        ...
        iresnet_flows.errors.InfiniteVariance: a tail that goes on with probability 1e-06 has ...
    """


class DataError(ValueError):
    """A data set that cannot be used; the message names the file, the place and the remedy."""


class UsageError(ValueError):
    """A command that cannot be carried out; the message names the value and the remedy."""


class StorageError(UsageError):
    """A file of a command that cannot be written, or read again; the message says which."""


class UnmatchedContender(UserWarning):
    """A contender that no width makes equal to the others; the message says by how much."""


class MissingExtra(ImportError):
    """An optional dependency that is not installed.

    Arguments:
        package: The package that could not be imported.
        extra: The extra of ``iresnet-flows`` that brings it.

    Example:
        >>> from iresnet_flows.errors import MissingExtra
        >>> raise MissingExtra("zuko", "zuko")
        Traceback (most recent call last):
        ...
        iresnet_flows.errors.MissingExtra: zuko is not installed. It comes with the extra ...
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package} is not installed. It comes with the extra {extra!r}: "
            f"pip install 'iresnet-flows[{extra}]'"
        )


def unknown(what: str, name: str, known: Iterable[str], others: str = "") -> str:
    """The message for a name that is not known, with the nearest known one.

    >>> unknown("model", "i-resne", ["nice", "i-resnet"])
    "unknown model 'i-resne': did you mean 'i-resnet'? Known: nice, i-resnet."

    Arguments:
        what: The kind of thing, such as ``model``.
        name: The name that was given.
        known: The known names.
        others: What else could be given, to end the list.
    """
    names = list(known)
    near = get_close_matches(name.lower(), names, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(names)}{others}."
