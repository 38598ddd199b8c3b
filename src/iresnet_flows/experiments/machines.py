"""What this machine has."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool

import torch

__all__ = ["cores", "one_thread", "prepare", "torch_device", "workers"]


def cores() -> int:
    """The cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks run faster on one thread, and their times are steadier."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def workers(count: int) -> Pool:
    """So many processes, of one thread each."""
    return multiprocessing.get_context("spawn").Pool(count, prepare)


def prepare() -> None:
    """A process of one thread that leaves Ctrl-C to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
