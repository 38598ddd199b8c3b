"""Packages that an extra brings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from iresnet_flows.errors import MissingExtra

__all__ = ["optional"]


def optional(module: str, package: str, extra: str = "experiments") -> Any:
    """A module that may be missing.

    Arguments:
        module: What to import.
        package: What to install for it.
        extra: The extra that brings it.

    Raises:
        MissingExtra: The package is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(package, extra) from error
