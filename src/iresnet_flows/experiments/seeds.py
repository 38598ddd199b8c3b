"""Draws that are a function of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int = 0, device: torch.device | None = None) -> Iterator[None]:
    """Draws within are those of the seed, and the generators of the caller stay as they were.

    They are torch's, and NumPy's global ones, from which some libraries draw.

    Arguments:
        seed: Any number from 0 on.
        device: Where torch draws too, beside the CPU.
    """
    state = np.random.get_state()  # noqa: NPY002
    devices = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
