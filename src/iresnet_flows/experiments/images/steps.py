"""The steps of a training, as Lightning asks for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel

from iresnet_flows.experiments.budgets import Budget, Diverged
from iresnet_flows.experiments.images.batches import Batches
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.images.tasks import Task
from iresnet_flows.experiments.seeds import MODEL, seeded, stream
from iresnet_flows.ranks import one_batch

__all__ = ["Training"]


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
        with seeded(stream(self.seed, MODEL, self.steps), self.device), one_batch():
            here = images.to(self.device), noise.to(self.device)
            losses = self.task.loss(self.model, *here)
        values = over_ranks(torch.stack([value.detach().float() for value in losses.values()]))
        self.losses = dict(zip(losses, values.tolist(), strict=True))
        if not math.isfinite(self.losses["loss"]):
            raise Diverged(f"the loss became {self.losses['loss']} at step {self.steps}")
        return losses["loss"]

    def finish_step(self) -> None:
        """What follows the optimiser's step."""
        self.steps += 1
        if self.recipe.after_step is not None:
            self.recipe.after_step(self.model)
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
