"""What watches over a training: rates, time, log, checkpoints and the end."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import lightning
from lightning.pytorch.callbacks import Callback

from iresnet_flows.experiments.storage import write, write_text

if TYPE_CHECKING:
    from iresnet_flows.experiments.images.steps import Training

__all__ = ["CHECKPOINT", "LOG", "Clock", "Progress", "ignore"]

CHECKPOINT = "last.ckpt"
LOG = "log.csv"
LOG_EVERY = 10

Progress: TypeAlias = Callable[[float, float], None]
"""Is told the share of the budget that is spent, and the loss."""


def ignore(spent: float, loss: float) -> None:
    """Show nothing."""


class Clock(Callback):
    """Keeps the time, sets the learning rate, writes what is kept and ends the training.

    Arguments:
        folder: Where log and checkpoint stand.
        now: Gives the time in seconds.
        progress: Is told after each step.
        seconds: The time between checkpoints.
        steps: The steps between them, or None.
    """

    def __init__(
        self,
        folder: Path,
        now: Callable[[], float],
        progress: Progress,
        seconds: float,
        steps: int | None,
    ) -> None:
        self.folder = folder
        self.now = now
        self.progress = progress
        self.seconds = seconds
        self.steps = steps
        self.last = self.saved = 0.0
        self.interrupted = False
        self.course: Log | None = None

    def interrupt(self) -> None:
        """Let the training end with the step, with a checkpoint and a `KeyboardInterrupt`."""
        self.interrupted = True

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        training = cast("Training", pl_module)
        self.last = self.now()
        self.saved = training.seconds
        if trainer.is_global_zero:
            self.course = Log(self.folder, training.steps)

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        factor = cast("Training", pl_module).factor()
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = factor * group["full_lr"]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        training = cast("Training", pl_module)
        training.finish_step()
        self.tick(trainer, training)
        spent = training.budget.spent(training.steps, training.seconds)
        if self.course is not None and (training.steps % LOG_EVERY == 1 or spent >= 1):
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self.course.add(training.steps, training.seconds, rate, training.losses)
        if spent >= 1:
            trainer.should_stop = True
        interrupted = self.interrupted  # which may change at any line
        if spent >= 1 or interrupted or self.is_due(training):
            self.save(trainer, training)
        if interrupted:
            raise KeyboardInterrupt
        self.progress(spent, training.losses["loss"])

    def tick(self, trainer: lightning.Trainer, training: Training) -> None:
        """Add the time since the last call, that of the first rank for all of them."""
        now = self.now()
        seconds = training.seconds + now - self.last
        if trainer.world_size > 1:
            seconds = trainer.strategy.broadcast(seconds)
        training.seconds, self.last = seconds, now

    def is_due(self, training: Training) -> bool:
        by_steps = self.steps is not None and training.steps % self.steps == 0
        return by_steps or training.seconds - self.saved >= self.seconds

    def save(self, trainer: lightning.Trainer, training: Training) -> None:
        """Write a checkpoint; a reader finds the old one or the new one, whole."""
        self.saved = training.seconds
        path = self.folder / CHECKPOINT
        if trainer.is_global_zero:
            write(path, trainer.save_checkpoint)
        else:  # all ranks take part, the first one writes
            trainer.save_checkpoint(path)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        if self.course is not None:
            self.course.close()


class Log:
    """The course of a training, as ``log.csv`` and for TensorBoard where that is installed.

    Arguments:
        folder: Where it stands.
        step: How many steps are done; what is there of later ones was lost.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / LOG
        lines = (
            self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            if self.path.exists()
            else []
        )
        kept = [line for line in lines[1:] if int(line.split(",")[0]) <= step]
        write_text(self.path, "".join([*lines[:1], *kept] if kept else []))
        self.board = board(folder / "tensorboard", step)

    def add(self, step: int, seconds: float, rate: float, losses: dict[str, float]) -> None:
        row = {"step": step, "seconds": round(seconds, 3), "learning_rate": rate, **losses}
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
            if not file.tell():
                writer.writeheader()
            writer.writerow(row)
        if self.board is not None:
            for name in row.keys() - {"step"}:
                self.board.add_scalar(name, row[name], step)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()


def board(folder: Path, step: int) -> Any:
    """TensorBoard's writer, or None where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
