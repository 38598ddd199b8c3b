"""What a result was made with."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

import torch

__all__ = ["installed", "versions"]


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of Python, this package, torch and others, and the machine."""
    return {
        "python": platform.python_version(),
        **{name: installed(name) for name in ("iresnet-flows", "torch", *packages)},
        "threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
