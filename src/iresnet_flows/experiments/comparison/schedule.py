"""Runs one after another, or side by side in processes, with a bar of progress each."""

from __future__ import annotations

import multiprocessing
import queue
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import Progress, TaskID

from iresnet_flows.experiments.comparison.results import Result
from iresnet_flows.experiments.comparison.runs import Task, contender, perform
from iresnet_flows.experiments.processes import workers
from iresnet_flows.experiments.terminal import budget_bars

__all__ = ["carry_out"]

REFRESH = 0.2


def carry_out(tasks: Sequence[Task], jobs: int, console: Console) -> list[Result]:
    """The results of all tasks, in their order; those of tasks that are done are read.

    Runs share no state and have one thread each, so that equal time is equal work while there are
    no more jobs than cores.

    Raises:
        KeyboardInterrupt: As given; what is done stays, and the last checkpoints.
        UsageError: A process died.
    """
    todo = [task for task in tasks if not task.is_done()]
    with budget_bars(console) as progress:
        if len(todo) < len(tasks):
            progress.console.print(f"{len(tasks) - len(todo)} of {len(tasks)} runs are there.")
        rows = [add(progress, task) for task in todo]
        if min(jobs, len(todo)) > 1:
            in_processes(todo, rows, jobs, progress)
        else:
            for task, row in zip(todo, rows, strict=True):
                finish(progress, row, perform(task, partial(update, progress, row)))
    return [Result.load(task.folder) for task in tasks]


def in_processes(
    tasks: Sequence[Task], rows: Sequence[TaskID], jobs: int, progress: Progress
) -> None:
    """Each task in one of a few processes, which tell how far they are through a queue."""
    news = multiprocessing.get_context("spawn").Queue()
    with workers(min(jobs, len(tasks)), listen, (news,)) as pool:
        pending = {
            pool.submit(reporting, task, Line(row)): row
            for task, row in zip(tasks, rows, strict=True)
        }
        while pending:
            with suppress(queue.Empty):
                update(progress, *news.get(timeout=REFRESH))
            for done in [future for future in pending if future.done()]:
                finish(progress, pending.pop(done), done.result())


@dataclass
class Line:
    """What a process tells its parent of a run.

    Attributes:
        news: Where it is told; given to a process once, by `listen`.
    """

    row: TaskID
    told: float = 0.0
    news: ClassVar[Any]

    def __call__(self, spent: float, loss: str) -> None:
        now = time.monotonic()
        if now - self.told >= REFRESH:
            self.told = now
            self.news.put((self.row, spent, loss))


def listen(news: Any) -> None:
    news.cancel_join_thread()  # what nobody reads any more should keep no process alive
    Line.news = news


def reporting(task: Task, line: Line) -> Result:
    return perform(task, line)


def add(progress: Progress, task: Task) -> TaskID:
    plan = task.plan
    title = f"{plan.data}: {contender(plan.model).title}, seed {plan.seed}"
    return progress.add_task(title, total=1.0, loss="waits")


def update(progress: Progress, row: TaskID, spent: float, loss: str) -> None:
    progress.update(row, completed=spent, loss=loss)


def finish(progress: Progress, row: TaskID, result: Result) -> None:
    said = "no density" if result.nats is None else f"{result.nats:.3f} nats (test)"
    progress.update(row, completed=1.0, loss=result.error or said)
