"""What this machine has."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

__all__ = ["cores", "keep_freed_memory", "on_threads", "stopwatch", "torch_device"]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def cores() -> int:
    """The cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


def keep_freed_memory() -> None:
    """Let this process use freed memory again, rather than the system, where that is glibc's.

    A training frees and asks for the same megabytes in each step. Pages that have gone back to the
    system come as new ones, which can take as long as the arithmetic on them.
    """
    if platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, 2**30)
        # Older ones take 32 MiB at most.
        library.mallopt(MMAP_THRESHOLD, 2**30) or library.mallopt(MMAP_THRESHOLD, 2**25)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """So many threads, and as many as before afterwards.

    Small networks run faster on one, and their times are steadier.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def stopwatch(device: str) -> Callable[[], float]:
    """What a budget of time is read from, in seconds.

    On one thread of a CPU it is the time of the processor, for other work on the machine should
    cost a training no steps; otherwise that of the wall clock.

    Arguments:
        device: The type of a device, as torch calls it.
    """
    alone = device == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def torch_device(name: str) -> torch.device:
    """The device that `--device` names; ``auto`` is a GPU if torch finds one.

    A GPU is one of CUDA. MPS has no float64, in which the bounds are.

    >>> torch_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device("cuda" if name == "gpu" else name)
