"""What this machine has."""

from __future__ import annotations

import os

import torch

__all__ = ["cores", "torch_device"]


def cores() -> int:
    """The cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def torch_device(name: str) -> torch.device:
    """The device that `--device` names; ``gpu`` and ``auto`` are what torch finds.

    >>> torch_device("cpu")
    device(type='cpu')
    """
    if name not in ("gpu", "auto"):
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
