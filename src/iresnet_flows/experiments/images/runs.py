"""Runs: a folder with a trained model of images, and what it takes to make it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.budgets import Budget
from iresnet_flows.experiments.images import catalogue
from iresnet_flows.experiments.images.clocks import CHECKPOINT
from iresnet_flows.experiments.images.recipes import Recipe, Shape
from iresnet_flows.experiments.images.sets import ImageSet
from iresnet_flows.experiments.images.tasks import Classification, Hybrid, Likelihood, Task
from iresnet_flows.experiments.images.training import WEIGHTS, epochs
from iresnet_flows.experiments.machines import torch_device
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.storage import SETTINGS, read_json, reading
from iresnet_flows.experiments.tensors import load_tensors

__all__ = ["Run", "is_finished", "load_run", "try_out"]


@dataclass(frozen=True)
class Run:
    """What a model and its training are made of, as ``settings.json`` keeps it.

    Arguments:
        kind: ``density`` or ``classifier``.
        model: The name of its recipe.
        scale: The scale of its recipe.
        shape: The shape of an image.
        classes: The number of classes.
        data: What it is trained on.
        conditional: Whether a density is that given the label.
        hybrid: The weight of the labels of a density that classifies too, or None.
        seed: That of the run.
        steps: The budget in steps, or None.
        epochs: The budget in epochs, or None.
        minutes: The budget in minutes, or None.
        precision: That of the training.
        images: A digest of what it is trained on, "" where the name of the data tells.
    """

    kind: str
    model: str
    scale: str
    shape: Shape
    classes: int
    data: str
    conditional: bool = False
    hybrid: float | None = None
    seed: int = 0
    steps: int | None = None
    epochs: int | None = None
    minutes: float | None = None
    precision: str = "32"
    images: str = ""

    def recipe(self) -> Recipe:
        """The model's recipe.

        Raises:
            UsageError: There is none of that name or scale.
        """
        return catalogue.recipe(self.kind, self.model, self.scale)

    @property
    def task(self) -> Task:
        """What it is trained for."""
        if self.kind == "classifier":
            return Classification()
        return Likelihood(self.conditional) if self.hybrid is None else Hybrid(self.hybrid)

    @property
    def classifies(self) -> bool:
        """Whether its model tells the class of an image."""
        return self.kind == "classifier" or self.hybrid is not None

    @property
    def reads_labels(self) -> bool:
        """Whether it is trained with the labels of images."""
        return self.classifies or self.conditional

    def budget(self, data: ImageSet) -> Budget:
        """How long it is trained on these images."""
        if self.epochs is not None:
            return epochs(self.epochs, self.recipe(), data)
        return Budget(self.steps, self.minutes)


def try_out(run: Run, data: ImageSet, device: torch.device) -> None:
    """The loss of two images on that device, for what it may raise.

    Raises:
        UsageError: The model is unknown, refuses the images or the labels, or there are none.
        MissingExtra: The model needs a package that is not installed.
    """
    recipe, part = run.recipe(), data.train[:2].to(device)
    if run.reads_labels and not data.classes:
        raise UsageError(
            f"{data.name} has no labels, which classify, --conditional and --hybrid need: put "
            "them into files whose names begin with train and t10k and hold 'labels'."
        )
    if run.kind == "classifier" and data.classes < 2:
        raise UsageError(f"{data.name} has labels of one class only: nothing to tell apart.")
    try:
        with seeded(run.seed, device), torch.no_grad():
            model = recipe.make(data.shape, data.classes).to(device)
            run.task.loss(model, part, torch.rand(part.pixels.shape, device=device))
    except ValueError as error:
        hint = "" if data.classes else " The images have no labels."
        if run.conditional:
            hint = " --conditional goes with --model i-resnet-classes."
        raise UsageError(f"{recipe.title} on {data.name}: {error}{hint}") from error


def load_run(folder: Path, device: str = "cpu") -> tuple[Run, nn.Module]:
    """A run and its model in eval mode, finished or as its last checkpoint has it.

    Arguments:
        folder: The folder of the run.
        device: Where the model is put, as `--device` names it.

    Raises:
        UsageError: It holds no run, or no weights yet.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise UsageError(f"{folder} holds no run: name the --out of a fit or classify.")
    with reading(path):
        record = dict(read_json(path))
        if record.get("kind") not in ("density", "classifier"):
            raise UsageError(f"{folder} holds something else than a run of fit or classify.")
        run = Run(**{**record, "shape": tuple(record["shape"])})
    with seeded(run.seed):
        model = run.recipe().make(run.shape, run.classes)
    with reading(folder):
        model.load_state_dict(weights(folder))
    return run, model.eval().to(torch_device(device))


def is_finished(folder: Path) -> bool:
    """Whether the training of a run has come to its end."""
    return (folder / WEIGHTS).is_file()


def weights(folder: Path) -> dict[str, Any]:
    """The state dict that is to be measured."""
    if is_finished(folder):
        return load_tensors(folder / WEIGHTS)
    if not (folder / CHECKPOINT).is_file():
        raise UsageError(f"{folder} has no weights yet: its training has not come that far.")
    state = load_tensors(folder / CHECKPOINT)["state_dict"]
    mean = "averaged.module."
    prefix = mean if any(name.startswith(mean) for name in state) else "model."
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
