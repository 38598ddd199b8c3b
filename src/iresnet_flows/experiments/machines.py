"""What this machine has."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.pool import Pool
from typing import TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["cores", "each_in_parallel", "on_threads", "prepare", "torch_device", "workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """The cores that this process may use."""
    return (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )


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


def each_in_parallel(
    items: Sequence[Item],
    jobs: int,
    console: Console,
    title: str,
    perform: Callable[[Item], Result],
) -> Iterator[Result]:
    """What is made of each, in their order, with a bar; so many processes of one thread each."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    with workers(min(jobs, len(items))) as pool, Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=len(items))
        for result in pool.imap(perform, items):
            progress.advance(task)
            yield result
