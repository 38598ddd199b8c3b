"""Training a contender to a budget, with Lightning."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from nflows.flows.base import Flow
from torch import Tensor

from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.comparison.contenders import Contender
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.machines import stopwatch, torch_device
from iresnet_flows.experiments.seeds import MODEL, NOISE, ORDER, seeded, stream
from iresnet_flows.experiments.storage import write
from iresnet_flows.experiments.trainers import train_module

__all__ = ["CHECKPOINT", "Progress", "Training", "fit", "prepared", "weight_decay"]

BATCH = 256
FLOOR = 1e-5
CLIP = 5.0
VALIDATIONS = 50
PATIENCE = 20
COOLING = 0.1
HELD_ROWS = 2048
DECAYED_ROWS = 5000
EVALUATION_SEED = 1
CHECKPOINT = "last.ckpt"

Progress: TypeAlias = Callable[[float, str], None]
"""Is told the share of the budget that is spent, and the loss in words."""


class Training(lightning.LightningModule):
    """Maximum likelihood with AdamW, the learning rate falling linearly over the budget.

    Where validation has stagnated the best weights are taken up again, the rate falls to its end
    over a tenth of the budget, and the training is over.

    Arguments:
        flow: An nflows `Flow` in model space.
        contender: Its recipe.
        dataset: Dequantises and standardises each batch.
        budget: When to stop.
        seed: Governs the noise of dequantisation and the order of the rows.
    """

    def __init__(
        self, flow: Flow, contender: Contender, dataset: Dataset, budget: Budget, seed: int
    ) -> None:
        super().__init__()
        self.flow = flow
        self.contender = contender
        self.dataset = dataset
        self.budget = budget
        self.seed = seed
        self.order = Order(len(dataset.train), seed)
        self.held = prepared(dataset, dataset.validation[:HELD_ROWS])
        self.steps = 0
        self.seconds = 0.0
        self.curve: list[tuple[int, float, float]] = []
        self.best = math.inf
        self.best_weights: dict[str, Any] = {}
        self.start, self.end = 0.0, 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.flow.parameters(),
            lr=self.contender.learning_rate,
            weight_decay=weight_decay(self.contender, len(self.dataset.train)),
        )

    def spent(self) -> float:
        """The share of the budget that is used up."""
        return self.budget.spent(self.steps, self.seconds)

    @property
    def rate(self) -> float:
        """The learning rate, which falls linearly to the end."""
        left = (1 - self.start) * max(0.0, self.end - self.spent()) / (self.end - self.start)
        return FLOOR + (self.contender.learning_rate - FLOOR) * left

    @property
    def over(self) -> bool:
        """Whether the training has come to its end."""
        return self.spent() >= self.end

    def cool(self) -> None:
        """Go back to the best weights, and let the rate fall to its end from there in a tenth.

        A contender of fast steps stagnates while its rate is high, and what a falling rate brings
        must not be for slow ones alone.
        """
        self.flow.load_state_dict(self.best_weights)
        self.start = self.spent()
        self.end = min(1.0, self.start + COOLING)

    def training_step(self, _batch: Any, _: int) -> Tensor:
        rows = self.dataset.train[self.order.at(self.steps)]
        noise = torch.Generator().manual_seed(stream(self.seed, NOISE, self.steps))
        z = self.dataset.prepare(rows, noise).to(self.device)
        with seeded(stream(self.seed, MODEL, self.steps), self.device):
            loss = -self.flow.log_prob(z).mean()
        if not math.isfinite(float(loss.detach())):
            raise Diverged(f"the loss became {float(loss.detach())} at step {self.steps}")
        return loss

    def validate(self) -> None:
        """Read the held-out rows, and keep the weights if they are the best so far.

        Raises:
            Diverged: The loss is no longer a number.
        """
        self.flow.eval()
        # The same draws each time, or the best of many noisy readings would be a lucky one.
        with seeded(EVALUATION_SEED, self.device), torch.no_grad():
            parts = [self.flow.log_prob(z.to(self.device)) for z in self.held.split(1024)]
        self.flow.train()
        nats = float(-torch.cat(parts).mean()) + self.dataset.log_scale
        self.curve.append((self.steps, self.seconds, nats))
        if not math.isfinite(nats):
            raise Diverged(f"the validation loss became {nats} at step {self.steps}")
        if nats < self.best:
            self.best, self.best_weights = nats, copy.deepcopy(self.flow.state_dict())

    def stagnates(self) -> bool:
        """Whether the last validations brought nothing, for the first time."""
        recent = [nats for _, _, nats in self.curve[-PATIENCE:]]
        return not self.start and len(self.curve) > PATIENCE and min(recent) > self.best

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        names = ("steps", "seconds", "curve", "best", "best_weights", "start", "end")
        checkpoint["training"] = {name: getattr(self, name) for name in names}

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        for name, value in checkpoint["training"].items():
            setattr(self, name, value)


class Order:
    """The rows of each step, a function of the seed and of the step.

    Those of an epoch are a permutation, of which what does not fill a batch is left out.

    Arguments:
        rows: How many there are.
        seed: Any number from 0 on.
    """

    def __init__(self, rows: int, seed: int) -> None:
        self.rows = rows
        self.seed = seed
        self.size = min(BATCH, rows)
        self.epoch = -1
        self.permutation = torch.empty(0, dtype=torch.long)

    def at(self, step: int) -> Tensor:
        """The indices of the rows of that step, (B,)."""
        epoch, index = divmod(step, self.rows // self.size)
        if epoch != self.epoch:
            generator = torch.Generator().manual_seed(stream(self.seed, ORDER, epoch))
            self.epoch, self.permutation = epoch, torch.randperm(self.rows, generator=generator)
        return self.permutation[index * self.size : (index + 1) * self.size]


class Clock(Callback):
    """Keeps the time of training alone, sets the learning rate, validates, and ends the training.

    Arguments:
        folder: Where its checkpoint stands.
        now: Gives the time in seconds.
        progress: Is told after each step.
    """

    def __init__(self, folder: Path, now: Callable[[], float], progress: Progress) -> None:
        self.folder = folder
        self.now = now
        self.progress = progress
        self.last = 0.0
        self.validated = 0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.last = self.now()
        self.validated = int(VALIDATIONS * cast("Training", pl_module).spent())

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        training = cast("Training", pl_module)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = training.rate

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        training = cast("Training", pl_module)
        if training.contender.after_step is not None:
            training.contender.after_step(training.flow)
        training.steps = trainer.global_step
        self.tick(training)
        loss = float(outputs["loss"]) + training.dataset.log_scale
        self.progress(training.spent(), f"{loss:.3f}")

        due = int(VALIDATIONS * training.spent())
        if due > self.validated:
            self.validated = due
            training.validate()
            if training.stagnates() and not training.over:
                training.cool()
            write(self.folder / CHECKPOINT, trainer.save_checkpoint)
            # Some read a row at many times the price of others, and none learns from it.
            self.last = self.now()
        if training.over:
            trainer.should_stop = True

    def tick(self, training: Training) -> None:
        now = self.now()
        training.seconds += now - self.last
        self.last = now


def fit(training: Training, folder: Path, device: str, progress: Progress) -> None:
    """Train to the budget, or until validation has stagnated; leave the best weights in place.

    A checkpoint stands in the folder, and a training that was cut off goes on from it, with the
    batches and the draws that it would have had.

    Raises:
        Diverged: The loss is no longer a number.
        KeyboardInterrupt: As given; the last checkpoint stays.
    """
    place = torch_device(device).type
    train_module(
        *(training, Clock(folder, stopwatch(place), progress), folder / CHECKPOINT),
        accelerator=place,
        devices=1,
        gradient_clip_val=CLIP,
    )

    training.flow.load_state_dict(training.best_weights)
    training.cpu().eval()


def weight_decay(contender: Contender, rows: int) -> float:
    """That of a training on so many rows: a contender's own is for few, up to 5000."""
    return contender.weight_decay if rows <= DECAYED_ROWS else 0.0


def prepared(dataset: Dataset, rows: Tensor) -> Tensor:
    """Rows in model space, with the same noise whenever they are asked for."""
    return dataset.prepare(rows, torch.Generator().manual_seed(EVALUATION_SEED))
