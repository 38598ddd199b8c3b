"""A training as a command shows it: its folder, its progress and what it came to."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from iresnet_flows.errors import StorageError, UsageError
from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.images.evaluation import (
    bits_per_dim,
    mean_and_error,
    mistakes,
    spoken,
)
from iresnet_flows.experiments.images.recipes import suited
from iresnet_flows.experiments.images.runs import Run, try_out
from iresnet_flows.experiments.images.sets import ImageSet
from iresnet_flows.experiments.images.training import (
    Machine,
    Trained,
    first_rank,
    shared_batch,
    train,
)
from iresnet_flows.experiments.storage import claim_folder, output_folder
from iresnet_flows.experiments.terminal import budget_bars, counted

__all__ = ["begin", "perform", "verdict"]

READ = 1000  # test images whose densities are read at once after a training


def begin(run: Run, data: ImageSet, folder: Path, machine: Machine, resume: bool) -> None:
    """Make the folder that of the run, on the first rank, if its model takes the images.

    Raises:
        UsageError: Its model is unknown or refuses the images or the labels, the devices cannot
            share a batch, or there is another run, or one that is not to be resumed.
    """
    try_out(run, data, machine.place)  # before there is a folder
    shared_batch(run.recipe(), data, machine)
    if first_rank():
        with output_folder(folder):
            claim_folder(folder, asdict(run), resume)


def perform(
    run: Run, data: ImageSet, folder: Path, machine: Machine, resume: bool, console: Console
) -> Trained:
    """Train the run, with a bar that shows the budget.

    Raises:
        UsageError: The loss is no longer a number, or the model refuses the images or the labels.
        KeyboardInterrupt: As given.
    """
    recipe, budget = suited(run.recipe(), data.shape), run.budget(data)
    with budget_bars(console) as bar:
        task = bar.add_task(recipe.title, total=1.0, loss="loss ...")

        def show(spent: float, loss: float) -> None:
            bar.update(task, completed=spent, loss=f"loss {loss:.3f}")

        try:
            return train(
                *(recipe, run.task, data, folder, budget, run.seed, machine, resume, show)
            )
        except StorageError:
            raise
        except (Diverged, ValueError) as error:
            raise UsageError(f"{recipe.title} on {data.name}: {error}") from error


def verdict(run: Run, trained: Trained, data: ImageSet) -> str:
    """What the model is worth on test images, in a sentence."""
    steps = counted(trained.steps, "step")
    said = f"{steps} in {trained.seconds:.0f} s, {trained.parameters} parameters."
    if not len(data.test):
        return f"{said} There are no test images to score."
    if run.classifies:
        wrong, error = mean_and_error(mistakes(trained.model, data.test))
        images = counted(len(data.test), "test image")
        said += f" {spoken(100 * wrong, 100 * error, 2)} % of {images} wrong."
    if run.kind == "density":
        part = data.test[:READ]
        value = spoken(*bits_per_dim(trained.model, part, run.conditional), places=4)
        said += f" {value} bits/dim on {counted(len(part), 'test image')}."
    return said
