r"""Training of any `Recipe` on images, by Lightning, on one device or many.

    from iresnet_flows.experiments.images.evaluation import bits_per_dim, test_error
    from iresnet_flows.experiments.images.tasks import Classification, Hybrid, Likelihood
    from iresnet_flows.experiments.images.training import Machine, epochs, train
    from iresnet_flows.experiments.training import Budget

    trained = train(recipe, Likelihood(), data, folder, Budget(minutes=2), seed=0)
    mean, standard_error = bits_per_dim(trained.model, data.test)

    trained = train(recipe, Classification(), data, folder, epochs(20, recipe, data))
    share_of_wrong_ones = test_error(trained.model, data.test)

Densities are given :math:`x = (k + u) / 256` with noise u in [0, 1), classifiers k / 255. The loss
of `Likelihood` is in bits per dimension, that of `Classification` in nats; `Recipe.clip` is in
these units. Models are measured in eval mode, with the moving average of the weights.

All that is random in a step, in the order of the images, the noise, the augmentation and the draws
of the model, is a function of the seed and of the step: a training that was stopped, even by
``kill -9``, goes on from its last checkpoint to the same bits, where the budget is one of steps.
Images, noise and probes are the same on any number of devices: each takes its part of one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.images.batches import MODEL, Batches, stream
from iresnet_flows.experiments.images.clocks import CHECKPOINT, Clock, Progress, ignore
from iresnet_flows.experiments.images.evaluation import seeded
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.images.sets import Images, ImageSet
from iresnet_flows.experiments.images.tasks import Task
from iresnet_flows.experiments.storage import write
from iresnet_flows.experiments.training import Budget, Diverged, quiet
from iresnet_flows.ranks import one_batch

__all__ = ["WEIGHTS", "Machine", "Trained", "Training", "build", "epochs", "train"]

WEIGHTS = "weights.pt"
CHECKPOINT_SECONDS = 60.0
PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "32": "32-true",
    "bf16": "bf16-mixed",
    "16": "16-mixed",
}


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Arguments:
        device: ``cpu``, ``gpu``, ``cuda``, ``mps`` or ``auto``.
        devices: How many of them each node has.
        nodes: The number of nodes, which `torchrun` or SLURM start.
        precision: ``32``, or ``bf16`` or ``16`` for mixed precision, with weights in float32.

    Raises:
        UsageError: A value is out of range.
    """

    device: str = "cpu"
    devices: int = 1
    nodes: int = 1
    precision: str = "32"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(
                f"--precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}."
            )
        if self.precision == "16" and self.device == "cpu":
            raise UsageError("--precision 16 needs a GPU: use bf16 or 32 on the CPU.")
        for name in ("devices", "nodes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}.")

    @property
    def ranks(self) -> int:
        """The processes of a training."""
        return self.devices * self.nodes


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to.

    Arguments:
        model: In eval mode, with the weights that are to be measured.
        steps: The optimiser steps taken.
        seconds: The time they took.
        parameters: The trainable numbers.
    """

    model: nn.Module
    steps: int
    seconds: float
    parameters: int


class Training(lightning.LightningModule):
    """The training of a model.

    Arguments:
        model: The model.
        recipe: Its optimiser and averaging.
        task: Gives the loss.
        batches: What it sees at each step.
        budget: When to stop, in steps or minutes.
        seed: That of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        task: Task,
        batches: Batches,
        budget: Budget,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.averaged = None if recipe.average is None else averaged(model, recipe.average)
        self.recipe = recipe
        self.task = task
        self.batches = batches
        self.budget = budget
        self.seed = seed
        self.steps = 0
        self.seconds = 0.0
        self.losses: dict[str, float] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimiser = self.recipe.optimiser(self.model.parameters())
        for group in optimiser.param_groups:
            group["full_lr"] = group["lr"]
        return optimiser

    def factor(self) -> float:
        """That of the learning rate."""
        spent = self.budget.spent(self.steps, self.seconds)
        return min(1.0, (self.steps + 1) / max(1, self.recipe.warmup)) * self.recipe.schedule(
            spent
        )

    def training_step(self, batch: Any, _: int) -> Tensor:
        images, noise = self.batches.at(self.steps, self.global_rank, self.trainer.world_size)
        here = Images(images.pixels.to(self.device), images.labels.to(self.device))
        with seeded(stream(self.seed, MODEL, self.steps), self.device), one_batch():
            losses = self.task.loss(self.model, here, noise.to(self.device))
        values = over_ranks(torch.stack([value.detach().float() for value in losses.values()]))
        self.losses = dict(zip(losses, values.tolist(), strict=True))
        if not math.isfinite(self.losses["loss"]):
            raise Diverged(f"the loss became {self.losses['loss']} at step {self.steps}")
        return losses["loss"]

    def finish_step(self) -> None:
        """What follows the optimiser's step."""
        self.steps += 1
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["steps"], checkpoint["seconds"] = self.steps, self.seconds

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        self.steps, self.seconds = checkpoint["steps"], checkpoint["seconds"]

    def on_train_end(self) -> None:
        # Weights are the same on all ranks, but each has the batch statistics of its own part.
        if distributed.is_available() and distributed.is_initialized():
            for buffer in self.buffers():
                distributed.broadcast(buffer, 0)

    def result(self) -> nn.Module:
        """The model with the weights that are to be measured."""
        return (self.model if self.averaged is None else self.averaged.module).eval()


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A moving average of the weights, of few steps at first, with the buffers as they are."""

    def average(
        means: tuple[Tensor, ...] | list[Tensor],
        values: tuple[Tensor, ...] | list[Tensor],
        count: Tensor | int,
    ) -> None:
        # Otherwise the first weights would count for most of a short training.
        weight = 1 - min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(means), list(values), weight)

    return AveragedModel(model, multi_avg_fn=torch.no_grad()(average)).requires_grad_(False)


def over_ranks(values: Tensor) -> Tensor:
    """Their means over all ranks, so that all of them act alike."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(values)
        values = values / distributed.get_world_size()
    return values


def first_rank() -> bool:
    """Whether this process is the one that writes, also before Lightning has begun."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


class Endless:
    """What Lightning goes through; the batches come from the number of the step."""

    def __iter__(self) -> Iterator[int]:
        return repeat(0)


def epochs(count: int, recipe: Recipe, data: ImageSet) -> Budget:
    """The budget of so many passes through the training images."""
    return Budget(steps=count * max(1, len(data.train) // recipe.batch))


def build(recipe: Recipe, data: ImageSet, seed: int) -> nn.Module:
    """The model before training, a function of the seed."""
    with seeded(stream(seed, MODEL, -1 % 2**32), torch.device("cpu")):
        return recipe.make(data.shape, data.classes)


def train(
    recipe: Recipe,
    task: Task,
    data: ImageSet,
    folder: Path,
    budget: Budget,
    seed: int = 0,
    machine: Machine | None = None,
    resume: bool = False,
    progress: Progress = ignore,
    checkpoint_seconds: float | None = None,
    checkpoint_steps: int | None = None,
) -> Trained:
    """Train a model, or go on with what is in the folder, or read it if it was finished.

    In the folder are afterwards ``weights.pt`` (the state dict of what is returned),
    ``last.ckpt`` (everything, to go on from), ``log.csv``, and ``tensorboard/`` if that is
    installed. With several devices every rank returns, and the first of them writes.

    Arguments:
        recipe: The model and its training.
        task: `Likelihood`, `Classification` or `Hybrid`.
        data: Its training part is trained on.
        folder: Of this run alone.
        budget: `Budget(steps=...)`, `Budget(minutes=...)` or `epochs(...)`.
        seed: Governs everything random.
        machine: The devices; None for one CPU.
        resume: Go on with what is in the folder, which must be a run of the same arguments.
        progress: Is told the share of the budget that is spent, and the loss, after each step.
        checkpoint_seconds: The time between checkpoints; None for a minute.
        checkpoint_steps: The steps between them, if that is less.

    Raises:
        Diverged: The loss is no longer a number; the message says at which step.
        UsageError: The batch cannot be shared by the devices.
        KeyboardInterrupt: As given; the last checkpoint stays.
    """
    machine = machine or Machine()
    size = min(recipe.batch, len(data.train))
    if size % machine.ranks:
        raise UsageError(
            f"a batch of {size} images cannot be shared by {machine.ranks} devices: "
            "take a number of devices that divides it."
        )
    if not resume and first_rank():
        for name in (CHECKPOINT, WEIGHTS):
            (folder / name).unlink(missing_ok=True)  # another run's, which a later one would take
    batches = Batches(data.train, size, seed, recipe.shift, recipe.flip)
    training = Training(build(recipe, data, seed), recipe, task, batches, budget, seed).train()
    seconds = CHECKPOINT_SECONDS if checkpoint_seconds is None else checkpoint_seconds
    clock = Clock(folder, progress, seconds, checkpoint_steps)
    run(training, clock, machine, folder / CHECKPOINT if resume else None)

    model = training.result()
    if first_rank():
        write(folder / WEIGHTS, lambda part: torch.save(model.state_dict(), part))
    parameters = sum(p.numel() for p in training.model.parameters() if p.requires_grad)
    return Trained(model, training.steps, training.seconds, parameters)


def run(training: Training, clock: Clock, machine: Machine, checkpoint: Path | None) -> None:
    """Let Lightning train, from the checkpoint if there is one."""
    begun = checkpoint is not None and checkpoint.exists()
    with quiet():
        trainer = lightning.Trainer(
            accelerator=machine.device,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy="ddp" if machine.ranks > 1 else "auto",
            precision=PRECISIONS[machine.precision],
            sync_batchnorm=machine.ranks > 1 and machine.device not in ("cpu", "mps"),
            max_epochs=-1,
            max_steps=training.budget.steps or -1,
            callbacks=[clock],
            gradient_clip_val=training.recipe.clip,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        path = str(checkpoint) if begun else None
        try:
            trainer.fit(training, Endless(), ckpt_path=path, weights_only=True)
        except SystemExit as interrupted:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from interrupted
