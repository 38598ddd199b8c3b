"""What a result was made with."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed", "versions"]


def versions(packages: Iterable[str], threads: int = 1) -> dict[str, str]:
    """The versions of Python, this package, torch and others, the threads, and the machine."""
    return {
        "python": platform.python_version(),
        **{name: installed(name) for name in ("iresnet-flows", "torch", *packages)},
        "threads": str(threads),
        "machine": platform.machine(),
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
