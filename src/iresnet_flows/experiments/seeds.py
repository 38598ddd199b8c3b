"""Draws that are a function of a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["MODEL", "NOISE", "ORDER", "seeded", "stream"]

ORDER, NOISE, MODEL = range(3)  # the streams of random numbers of a training
CPU = torch.device("cpu")


@contextmanager
def seeded(seed: int = 0, device: torch.device = CPU) -> Iterator[None]:
    """Draws within are those of the seed, and the generators of the caller stay as they were.

    They are torch's on the CPU and on the device, Python's, and NumPy's global one, from which
    some libraries draw.

    Arguments:
        seed: Any number from 0 on.
        device: Where torch draws too.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def stream(seed: int, kind: int, index: int) -> int:
    """The seed of one of many streams that have nothing to do with each other."""
    state = np.random.SeedSequence((seed, kind, index)).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
