"""Processes that work side by side, and how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from threading import Thread, current_thread, main_thread
from typing import Any, TypeVar

import torch
from rich.console import Console

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.machines import keep_freed_memory
from iresnet_flows.experiments.terminal import counter

__all__ = ["each_in_parallel", "postponed_interrupt", "workers"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def at_interrupt(handler: Callable[[int, Any], None] | signal.Handlers) -> Iterator[None]:
    """What a Ctrl-C within does; in a thread, which cannot set it, what it does anyway."""
    if current_thread() is not main_thread():
        yield
        return
    usual = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)


@contextmanager
def postponed_interrupt(note: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C within is noted, for whoever can stop in good order; the next one stops."""
    usual = signal.default_int_handler
    if signal.getsignal(signal.SIGINT) is not usual:
        yield
        return

    def first(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, usual)
        note()

    with at_interrupt(first):
        yield


class Worker(SpawnProcess):
    """A process that leaves Ctrl-C to its parent, from its first moment on."""

    def start(self) -> None:
        """Begin, with Ctrl-C ignored, which a process inherits."""
        with at_interrupt(signal.SIG_IGN):
            super().start()


class Workers(SpawnContext):
    """Where processes are workers."""

    Process = Worker


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
    with ProcessPoolExecutor(count, Workers(), prepare, (begin, given)) as pool:
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which not every system lets it inherit
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
