"""Trainings that a study plans: each with a folder of its own, any number of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from rich.console import Console
from torch import nn

from iresnet_flows.errors import IntegrationFailed, UsageError
from iresnet_flows.experiments.budgets import Diverged
from iresnet_flows.experiments.images.data import load_images
from iresnet_flows.experiments.images.recipes import suited
from iresnet_flows.experiments.images.runs import Run, try_out
from iresnet_flows.experiments.images.sets import Images, ImageSet
from iresnet_flows.experiments.images.training import Machine, Trained, train
from iresnet_flows.experiments.machines import torch_device
from iresnet_flows.experiments.processes import each_in_parallel
from iresnet_flows.experiments.storage import claim_part, read_json, reading, write_json
from iresnet_flows.experiments.studies import Settings

__all__ = [
    "Spec",
    "begin",
    "in_parallel",
    "kept",
    "ready",
]

EPOCHS = 200
OUTCOME = "outcome.json"


class Measured(Protocol):
    """What a training came to."""

    @property
    def failure(self) -> str | None:
        """Why there is no result, or None."""


Result = TypeVar("Result", bound=Measured)


@dataclass(frozen=True)
class Spec:
    """A model to be trained; it can be sent to another process.

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
    def of(
        cls,
        settings: Settings,
        data: ImageSet,
        kind: str,
        model: str,
        seed: int,
        minutes: float,
    ) -> Spec:
        """A training of a study, in ``runs/`` of its folder, which other studies find there.

        Arguments:
            settings: Those of the study.
            data: What it is trained on, a built-in set.
            kind: ``density`` or ``classifier``.
            model: Its name.
            seed: Its seed.
            minutes: The time of each at the scale ``quick``, where the settings tell none.
        """
        full = settings.scale == "paper" and settings.minutes is None
        run = Run(
            kind,
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
        name = f"{settings.scale}-{data.name}-{model}-seed{seed}"
        folder = settings.out / "runs" / (name if kind == "classifier" else f"{kind}-{name}")
        return cls(run, settings.data_dir, folder, "gpu" if gpu else "cpu")

    def is_done(self) -> bool:
        """Whether it is trained and measured."""
        return (self.folder / OUTCOME).is_file()


def begin(specs: Sequence[Spec], data: Sequence[ImageSet], resume: bool) -> None:
    """Make the folders of the runs, or see that they are of the same runs.

    Raises:
        UsageError: There is another run, or one that is not to be resumed, or a model refuses
            the images.
        MissingExtra: A model needs a package that is not installed.
    """
    shapes = {each.name: each for each in data}
    for spec in {(spec.run.model, spec.run.data): spec for spec in specs}.values():
        try_out(spec.run, shapes[spec.run.data], torch_device(spec.device))
    for spec in specs:
        claim_part(spec.folder, asdict(spec.run), resume)


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
    count = 1 if any(spec.device != "cpu" for spec in specs) else jobs
    return each_in_parallel(specs, count, console, title, perform)


def ready(
    specs: Sequence[Spec],
    data: ImageSet,
    settings: Settings,
    console: Console,
    title: str,
    perform: Callable[[Spec], Result],
) -> list[Result]:
    """What each came to; those that another study has trained in the folder are read.

    Raises:
        UsageError: As of `begin`, or a training failed.
        MissingExtra: A model needs a package that is not installed.
    """
    if missing := [spec for spec in specs if not spec.is_done()]:
        begin(missing, [data], settings.resume)
        list(in_parallel(missing, settings.jobs, console, title, perform))
    found = [perform(spec) for spec in specs]
    for spec, outcome in zip(specs, found, strict=True):
        if outcome.failure is not None:
            named = spec.run.recipe().title
            raise UsageError(f"{named}: {outcome.failure}: give another --seed or --minutes.")
    return found


def kept(
    spec: Spec,
    kind: Callable[..., Result],
    measure: Callable[[Spec, nn.Module, Images], dict[str, Any]],
    tested: int | None = None,
) -> Result:
    """What a training came to, from its folder; it is trained and measured if that holds none.

    Arguments:
        spec: The training.
        kind: What it comes to.
        measure: Gives what that says of a trained model on the test images.
        tested: How many of these are used; None for all.
    """
    path = spec.folder / OUTCOME
    if not spec.is_done():
        write_json(path, vars(performed(spec, kind, measure, tested)))
    with reading(path):
        return kind(**read_json(path))


def performed(
    spec: Spec,
    kind: Callable[..., Result],
    measure: Callable[[Spec, nn.Module, Images], dict[str, Any]],
    tested: int | None,
) -> Result:
    run = spec.run
    data = load_images(run.data, spec.data_dir).all_for_training().subset(test=tested)
    about = run.data, run.model, run.seed, len(data.train), len(data.test)
    try:
        trained = carry_out(spec, data)
        found = measure(spec, trained.model, data.test)
    except (Diverged, IntegrationFailed) as failure:
        return kind(*about, failure=str(failure))
    return kind(
        *about,
        steps=trained.steps,
        seconds=trained.seconds,
        parameters=trained.parameters,
        **found,
    )


def carry_out(spec: Spec, data: ImageSet) -> Trained:
    """Train the model, or go on with what is in its folder.

    Raises:
        Diverged: The loss is no longer a number.
    """
    run = spec.run
    recipe = suited(run.recipe(), data.shape)
    return train(
        *(recipe, run.task, data, spec.folder, run.budget(data), run.seed),
        machine=Machine(spec.device),
        resume=True,
    )
