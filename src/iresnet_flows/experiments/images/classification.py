"""Classifiers trained and measured alike: what the tables and figures of them share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from iresnet_flows.errors import InverseNotConverged, UsageError
from iresnet_flows.experiments.images.classifiers import COEFFICIENTS
from iresnet_flows.experiments.images.clocks import CHECKPOINT
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.evaluation import mean_and_error, mistakes
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.images.runs import SETTINGS, Run
from iresnet_flows.experiments.images.sets import ImageSet
from iresnet_flows.experiments.images.studies import Settings
from iresnet_flows.experiments.images.tasks import scaled
from iresnet_flows.experiments.images.training import WEIGHTS, Machine, build, epochs, train
from iresnet_flows.experiments.machines import workers
from iresnet_flows.experiments.storage import claim_folder, read_json, write_json
from iresnet_flows.experiments.training import Budget, Diverged
from iresnet_flows.lipschitz import LipschitzConvNet, convolution_norm_bound
from iresnet_flows.models import InvertibleClassifier, UnconstrainedBlock

__all__ = [
    "EPOCHS",
    "OUTCOME",
    "Outcome",
    "Spec",
    "begin",
    "check_models",
    "in_parallel",
    "perform",
    "perform_all",
    "suited",
]

Result = TypeVar("Result")

EPOCHS = 200
RESTORED = 100
OUTCOME = "outcome.json"


@dataclass(frozen=True)
class Spec:
    """A classifier to be trained; it can be sent to another process.

    Arguments:
        run: What it is made of.
        data_dir: As in `load_images`.
        folder: Of this run alone.
        device: What it is trained on.
    """

    run: Run
    data_dir: Path | None
    folder: Path
    device: str

    @classmethod
    def of(cls, settings: Settings, data: ImageSet, model: str, seed: int, minutes: float) -> Spec:
        """A training of a study, in ``runs/`` of its folder, which other studies find there.

        Arguments:
            settings: Those of the study.
            data: What it is trained on, a built-in set.
            model: The name of the classifier.
            seed: Its seed.
            minutes: The time of each at the scale ``quick``, where the settings tell none.
        """
        full = settings.scale == "paper" and settings.minutes is None
        run = Run(
            "classifier",
            model,
            settings.scale,
            data.shape,
            data.classes,
            data.name,
            seed=seed,
            epochs=EPOCHS if full else None,
            minutes=None if full else settings.minutes or minutes,
        )
        gpu = settings.scale == "paper" and torch.cuda.is_available()
        folder = settings.out / "runs" / f"{settings.scale}-{data.name}-{model}-seed{seed}"
        return cls(run, settings.data_dir, folder, "gpu" if gpu else "cpu")

    def is_done(self) -> bool:
        """Whether it is trained and measured."""
        return (self.folder / OUTCOME).is_file()


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Arguments:
        data: The name of the data.
        model: The name of the classifier.
        seed: That of the run.
        train_images: How many it is trained on.
        test_images: How many it is measured on.
        failure: Why there is no result, or None.
        wrong: The share of test images that it gets wrong.
        wrong_error: Its standard error over the test images.
        guaranteed: Whether it has an inverse for every image.
        decodes: Whether it was asked for one.
        pixel_error: The largest error of a pixel that is decoded again, of 100 test images with
            pixels in [0, 1]; None where it is not finite or the inverse says that it failed.
        norm: A certified bound of the largest norm of its convolutions, those of residual blocks.
        claim: What that norm should be at most.
        steps: The steps of training.
        seconds: Their time.
        parameters: The trainable numbers.
    """

    data: str
    model: str
    seed: int
    train_images: int
    test_images: int
    failure: str | None = None
    wrong: float | None = None
    wrong_error: float | None = None
    guaranteed: bool = False
    decodes: bool = False
    pixel_error: float | None = None
    norm: float | None = None
    claim: float | None = None
    steps: int = 0
    seconds: float = 0.0
    parameters: int = 0


def begin(specs: Sequence[Spec], data: Sequence[ImageSet], resume: bool) -> None:
    """Clear the folders of the runs, or see that they are of the same runs.

    Raises:
        UsageError: There is another run to resume, or a model refuses the images.
        MissingExtra: A model needs a package that is not installed.
    """
    shapes = {each.name: each for each in data}
    for spec in {(spec.run.model, spec.run.data): spec for spec in specs}.values():
        recipe, name = spec.run.recipe(), spec.run.data
        try:
            build(recipe, shapes[name], 0)
        except ValueError as error:
            raise UsageError(f"{recipe.title} on {name}: {error}") from error
    for spec in specs:
        going_on = resume and (spec.folder / SETTINGS).is_file()
        claim_folder(spec.folder, spec.run.record(), going_on, ["tensorboard"])
        if not going_on:
            for kept in (OUTCOME, CHECKPOINT, WEIGHTS):
                (spec.folder / kept).unlink(missing_ok=True)


def perform_all(specs: Sequence[Spec], jobs: int, console: Console) -> Iterator[Outcome]:
    """Train and measure what is not done yet; the outcomes come in the order of the specs."""
    return in_parallel(specs, jobs, console, "classifiers", perform)


def in_parallel(
    specs: Sequence[Spec],
    jobs: int,
    console: Console,
    title: str,
    perform: Callable[[Spec], Result],
) -> Iterator[Result]:
    """What is made of each, in the order of the specs.

    Runs share no state and have one thread each, so that equal time is equal work while there are
    no more jobs than cores. On a GPU there is one at a time.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    count = 1 if any(spec.device != "cpu" for spec in specs) else min(jobs, len(specs))
    with workers(count) as pool, Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=len(specs))
        for outcome in pool.imap(perform, specs):
            progress.advance(task)
            yield outcome


def perform(spec: Spec) -> Outcome:
    """Train and measure, or read what was."""
    kept = spec.folder / OUTCOME
    if spec.is_done():
        return Outcome(**read_json(kept))
    run = spec.run
    data = load_images(run.data, spec.data_dir).all_for_training()
    recipe = suited(run.recipe(), data)
    budget = epochs(run.epochs, recipe, data) if run.epochs else Budget(minutes=run.minutes)
    counts = len(data.train), len(data.test)
    try:
        trained = train(
            *(recipe, run.task, data, spec.folder, budget, run.seed),
            machine=Machine(spec.device),
            resume=True,
        )
    except Diverged as diverged:
        outcome = Outcome(run.data, run.model, run.seed, *counts, failure=str(diverged))
    else:
        wrong, error = mean_and_error(mistakes(trained.model, data.test))
        outcome = Outcome(
            *(run.data, run.model, run.seed, *counts),
            wrong=wrong,
            wrong_error=error,
            steps=trained.steps,
            seconds=trained.seconds,
            parameters=trained.parameters,
            claim=COEFFICIENTS.get(run.model.replace("-glow", "")),
            **inversion(trained.model, scaled(data.test.pixels[:RESTORED])),
        )
    write_json(kept, asdict(outcome))
    return Outcome(**read_json(kept))  # as it is read again


def suited(recipe: Recipe, data: ImageSet) -> Recipe:
    """The recipe with the augmentation of colour photographs, where the data are such."""
    return replace(recipe, shift=4, flip=True) if data.shape[0] == 3 else recipe


@torch.no_grad()
def inversion(model: nn.Module, images: Tensor) -> dict[str, Any]:
    """What an `Outcome` says of the inverse."""
    if not isinstance(model, InvertibleClassifier):
        return {}
    images = images.to(next(model.parameters()).device)
    try:
        restored = model.decode(model.encode(images))
        error = float((restored - images).abs().max())
    except InverseNotConverged:
        error = float("nan")
    return {
        "guaranteed": not any(isinstance(m, UnconstrainedBlock) for m in model.modules()),
        "decodes": True,
        "pixel_error": error,
        "norm": largest_norm(model),
    }


def largest_norm(model: nn.Module) -> float | None:
    """A certified bound of the largest norm of the convolutions of residual blocks."""
    kernels: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, LipschitzConvNet):
            kernels += module.evenly_constrained()[0]
        if isinstance(module, UnconstrainedBlock):
            kernels += [m.weight for m in module.modules() if isinstance(m, nn.Conv2d)]
    norms = [float(convolution_norm_bound(kernel)) for kernel in kernels]
    return max(norms, default=None)


def check_models(names: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    """The models that a study is asked for, or all of it.

    Raises:
        UsageError: It has none of that name.
    """
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise UsageError(f"--models: unknown {', '.join(unknown)}. Known: {', '.join(known)}.")
    return tuple(dict.fromkeys(names or known))
