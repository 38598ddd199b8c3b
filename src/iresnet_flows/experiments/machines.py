"""What this machine has."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iresnet_flows.errors import UsageError

__all__ = [
    "cores",
    "counter",
    "each_in_parallel",
    "keep_freed_memory",
    "on_threads",
    "postponed_interrupt",
    "stopwatch",
    "torch_device",
    "workers",
]

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

Item = TypeVar("Item")
Result = TypeVar("Result")


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


@contextmanager
def postponed_interrupt(note: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C within is noted, for whoever can stop in good order; the next one stops."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return

    def first(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, usual)
        note()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def workers(
    count: int, begin: Callable[..., None] | None = None, given: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """So many processes, of one thread each; an error within the block ends them at once.

    Arguments:
        count: Their number.
        begin: Is called in each, first, with what is given.
        given: What a process can be told at its start alone, such as a queue.

    Raises:
        UsageError: One of them died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, prepare, (begin, given)) as pool:
        try:
            yield pool
        except BaseException as error:
            for process in multiprocessing.active_children():
                process.kill()
            if isinstance(error, BrokenProcessPool):
                raise UsageError(
                    "a process was killed from outside, maybe for want of memory: what is done "
                    "is kept, and with a smaller --jobs the rest needs less."
                ) from error
            raise


def prepare(begin: Callable[..., None] | None, given: tuple[Any, ...]) -> None:
    """A process of one thread that leaves Ctrl-C to its parent and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    keep_freed_memory()
    if begin is not None:
        begin(*given)


def follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # whatever this process writes is renamed into place when it is whole


def each_in_parallel(
    items: Sequence[Item],
    jobs: int,
    console: Console,
    title: str,
    perform: Callable[[Item], Result],
) -> Iterator[Result]:
    """What is made of each, in their order, with a bar; so many processes of one thread each."""
    with workers(min(jobs, len(items))) as pool, counter(console) as progress:
        task = progress.add_task(title, total=len(items))
        for result in pool.map(perform, items):
            progress.advance(task)
            yield result


def counter(console: Console) -> Progress:
    """Bars that count what is done."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
    )
