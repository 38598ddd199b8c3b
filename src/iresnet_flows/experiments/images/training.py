r"""Training of any `Recipe` on images, by Lightning, on one device or many.

    from iresnet_flows.experiments.images.evaluation import bits_per_dim, test_error
    from iresnet_flows.experiments.images.tasks import Classification, Hybrid, Likelihood
    from iresnet_flows.experiments.images.training import Machine, epochs, train
    from iresnet_flows.experiments.budgets import Budget

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

Many devices share a training by Lightning's DDP, which starts its own processes on one node and
takes those of `torchrun` and SLURM on several. The weights stay equal to the bit on all ranks.
Batch statistics are those of all ranks on GPUs and of each rank on CPUs. FSDP is not offered: the
start of `ActNorm` from the first batch writes to parameters in the forward pass, which torch's
first FSDP refuses, and which its second one, `fully_shard`, takes and then loses.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.images.batches import Batches
from iresnet_flows.experiments.images.clocks import CHECKPOINT, Clock, Progress, ignore
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.images.sets import ImageSet
from iresnet_flows.experiments.images.steps import Training
from iresnet_flows.experiments.images.tasks import Task
from iresnet_flows.experiments.machines import stopwatch, torch_device
from iresnet_flows.experiments.processes import postponed_interrupt
from iresnet_flows.experiments.seeds import MODEL, seeded, stream
from iresnet_flows.experiments.storage import write
from iresnet_flows.experiments.trainers import train_module
from iresnet_flows.experiments.widths import trainable

__all__ = [
    "WEIGHTS",
    "Machine",
    "Trained",
    "build",
    "epochs",
    "first_rank",
    "shared_batch",
    "train",
]

WEIGHTS = "weights.pt"
CHECKPOINT_SECONDS = 60.0
TORCHRUN = "TORCHELASTIC_RUN_ID"  # what it sets
STARTERS = {TORCHRUN, "SLURM_JOB_ID", "NODE_RANK"}
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Machine:
    """What a training runs on.

    Arguments:
        device: ``cpu``, ``gpu``, ``cuda`` or ``auto``.
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
        if self.precision == "16" and torch_device(self.device).type == "cpu":
            raise UsageError("--precision 16 needs a GPU: use bf16 or 32 on the CPU.")
        for name in ("devices", "nodes"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1, got {getattr(self, name)}.")
        if self.nodes > 1 and not STARTERS & os.environ.keys():
            raise UsageError(
                f"--nodes {self.nodes} waits for processes that torchrun or srun starts on each "
                "node: start the command with one of them."
            )
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if TORCHRUN in os.environ and started != self.ranks:
            raise UsageError(
                f"torchrun started {started} processes, and --devices times --nodes is "
                f"{self.ranks}: make them equal."
            )

    @property
    def ranks(self) -> int:
        """The processes of a training."""
        return self.devices * self.nodes

    @property
    def place(self) -> torch.device:
        """The device of this process."""
        found = torch_device(self.device)
        return torch.device("cuda", rank() % self.devices) if found.type == "cuda" else found


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training came to.

    Arguments:
        model: In eval mode, with the weights that are to be measured, on the device that they
            were trained on.
        steps: The optimiser steps taken.
        seconds: The time they took.
        parameters: The trainable numbers.
    """

    model: nn.Module
    steps: int
    seconds: float
    parameters: int


def rank() -> int:
    """The number of this process among all of the training, also before Lightning has begun."""
    return int(getattr(rank_zero_only, "rank", 0))


def first_rank() -> bool:
    """Whether this process is the one that writes."""
    return rank() == 0


def epochs(count: int, recipe: Recipe, data: ImageSet) -> Budget:
    """The budget of so many passes through the training images."""
    return Budget(steps=count * max(1, len(data.train) // recipe.batch))


def build(recipe: Recipe, data: ImageSet, seed: int) -> nn.Module:
    """The model before training, a function of the seed."""
    with seeded(stream(seed, MODEL, -1 % 2**32)):
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
        checkpoint_steps: The steps between checkpoints, if they take less than a minute.

    Raises:
        Diverged: The loss is no longer a number; the message says at which step.
        UsageError: The batch cannot be shared by the devices.
        KeyboardInterrupt: Ctrl-C, after the step and a checkpoint; at once the second time, or on
            several devices, and then the last checkpoint stays.
    """
    machine = machine or Machine()
    size = shared_batch(recipe, data, machine)
    if not resume and first_rank():
        for name in (CHECKPOINT, WEIGHTS):
            (folder / name).unlink(missing_ok=True)  # another run's, which a later one would take
    batches = Batches(data.train, size, seed, recipe.shift, recipe.flip)
    training = Training(build(recipe, data, seed), recipe, task, batches, budget, seed).train()
    now = stopwatch(machine.place.type)
    clock = Clock(folder, now, progress, CHECKPOINT_SECONDS, checkpoint_steps)
    run(training, clock, machine, folder / CHECKPOINT if resume else None)

    model = training.result()
    if first_rank():
        write(folder / WEIGHTS, lambda part: torch.save(model.state_dict(), part))
    parameters = trainable(training.model)
    # Lightning has taken it back to the CPU.
    return Trained(model.to(machine.place), training.steps, training.seconds, parameters)


def shared_batch(recipe: Recipe, data: ImageSet, machine: Machine) -> int:
    """The images of a step.

    Raises:
        UsageError: The devices cannot share them.
    """
    size = min(recipe.batch, len(data.train))
    if size % machine.ranks:
        raise UsageError(
            f"a batch of {size} images cannot be shared by {machine.ranks} devices: "
            "take a number of devices that divides it."
        )
    return size


def run(training: Training, clock: Clock, machine: Machine, checkpoint: Path | None) -> None:
    """Let Lightning train, from the checkpoint if there is one."""
    many = machine.ranks > 1
    # Ranks that stop at different steps would wait for each other.
    with nullcontext() if many else postponed_interrupt(clock.interrupt):
        train_module(
            *(training, clock, checkpoint),
            accelerator=machine.place.type,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy="ddp" if many else "auto",
            precision=PRECISIONS[machine.precision],
            sync_batchnorm=many and machine.place.type == "cuda",
            max_steps=training.budget.steps or -1,
            gradient_clip_val=training.recipe.clip,
        )
    if clock.interrupted:  # after the last step
        raise KeyboardInterrupt
