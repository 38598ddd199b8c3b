"""Training a contender to a budget, with Lightning."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from nflows.flows.base import Flow
from rich.progress import Progress, TaskID
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.data.datasets import Dataset
from iresnet_flows.experiments.quietness import quiet

__all__ = ["Training", "fit", "prepared"]

BATCH = 256
FLOOR = 1e-5
CLIP = 5.0
EVERY = 25
PATIENCE = 40
EVALUATION_SEED = 1


class Training(lightning.LightningModule):
    """Maximum likelihood with AdamW, the learning rate decaying linearly over the budget.

    Arguments:
        flow: An nflows `Flow` in model space.
        dataset: Dequantises and standardises each batch.
        budget: When to stop.
        learning_rate: The rate at the start.
        weight_decay: That of AdamW.
        seed: Governs the noise of dequantisation.
    """

    def __init__(
        self,
        flow: Flow,
        dataset: Dataset,
        budget: Budget,
        learning_rate: float,
        weight_decay: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.flow = flow
        self.dataset = dataset
        self.budget = budget
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.noise = torch.Generator().manual_seed(seed)
        self.steps = 0
        self.seconds = 0.0
        self.curve: list[tuple[int, float, float]] = []

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.flow.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )

    def spent(self) -> float:
        return self.budget.spent(self.global_step, self.seconds)

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        z = self.dataset.prepare(batch[0].cpu(), self.noise).to(self.device)
        loss = -self.flow.log_prob(z).mean()
        if not math.isfinite(float(loss.detach())):
            raise Diverged(f"the loss became {float(loss.detach())} at step {self.global_step}")
        return loss

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        nats = -self.flow.log_prob(batch[0]).mean() + self.dataset.log_scale
        self.log("validation_nats", nats.detach(), batch_size=len(batch[0]))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["seconds"], checkpoint["curve"] = self.seconds, self.curve
        checkpoint["noise"] = self.noise.get_state()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        self.seconds, self.curve = checkpoint["seconds"], list(checkpoint["curve"])
        self.noise.set_state(checkpoint["noise"])


class Clock(Callback):
    """Keeps the time, sets the learning rate, shows the progress and ends the training."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress = progress
        self.task = task
        self.last = 0.0

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.last = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        training = cast("Training", pl_module)
        rate = FLOOR + (training.learning_rate - FLOOR) * (1 - training.spent())
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        training = cast("Training", pl_module)
        self.tick(training)
        training.steps = trainer.global_step
        loss = float(outputs["loss"]) + training.dataset.log_scale
        self.progress.update(self.task, completed=training.spent(), loss=f"{loss:.3f}")
        if training.spent() >= 1:
            trainer.should_stop = True

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        training = cast("Training", pl_module)
        self.tick(training)
        nats = float(trainer.callback_metrics["validation_nats"])
        training.curve.append((trainer.global_step, training.seconds, nats))
        if not math.isfinite(nats):
            raise Diverged(f"the validation loss became {nats} at step {trainer.global_step}")

    def tick(self, training: Training) -> None:
        now = time.perf_counter()
        training.seconds += now - self.last
        self.last = now


def fit(training: Training, folder: Path, device: str, progress: Progress, task: TaskID) -> None:
    """Train to the budget, or until validation stops improving; leave the best weights in place.

    Checkpoints stand in the folder, and a training that was cut off goes on from the last of them.

    Raises:
        Diverged: The loss is no longer a number.
        KeyboardInterrupt: As given; the last checkpoint stays.
    """
    dataset, seed = training.dataset, int(training.noise.initial_seed())
    order = torch.Generator().manual_seed(seed)
    train = DataLoader(
        TensorDataset(dataset.train),
        min(BATCH, len(dataset.train)),
        shuffle=True,
        drop_last=True,
        generator=order,
    )
    validation = DataLoader(TensorDataset(prepared(dataset, dataset.validation)), 1024)

    best = ModelCheckpoint(
        folder, "best", "validation_nats", save_last=True, enable_version_counter=False
    )
    patience = EarlyStopping("validation_nats", patience=PATIENCE, check_finite=False)
    last = folder / "last.ckpt"

    with quiet():
        trainer = lightning.Trainer(
            accelerator=device,
            devices=1,
            max_epochs=-1,
            callbacks=[Clock(progress, task), patience, best],
            gradient_clip_val=CLIP,
            val_check_interval=EVERY,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        resume = str(last) if last.exists() else None
        try:
            trainer.fit(training, train, validation, ckpt_path=resume, weights_only=True)
        except SystemExit as interrupted:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from interrupted

    state = torch.load(best.best_model_path, weights_only=True)["state_dict"]
    training.load_state_dict(state)
    training.cpu().eval()


def prepared(dataset: Dataset, rows: Tensor) -> Tensor:
    """Rows in model space, with the same noise whenever they are asked for."""
    return dataset.prepare(rows, torch.Generator().manual_seed(EVALUATION_SEED))
