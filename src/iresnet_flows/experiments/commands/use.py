"""What trained models are for: samples and scores."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.commands.app import DataDir, app, check_device, check_seeds
from iresnet_flows.experiments.data.bundled import PARTS
from iresnet_flows.experiments.storage import output_folder, require_room
from iresnet_flows.experiments.terminal import counted, say_place, terminal, tracked

__all__ = ["sample", "score"]

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
Device = Annotated[str, typer.Option(help="cpu, gpu or auto.")]


@app.command()
def sample(
    run: Folder,
    count: Annotated[int, typer.Option("-n", "--count", help="How many.")] = 64,
    temperature: Annotated[float, typer.Option(help="A factor of the latents' deviation.")] = 1.0,
    label: Annotated[
        int | None, typer.Option(help="Of this class alone, where fit was told of classes.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A .png or .npy file. Default: samples.png in RUN.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Governs the draws.")] = 0,
    device: Device = "cpu",
) -> None:
    """Draw images from a density."""
    if count < 1:
        raise UsageError(f"-n must be at least 1, got {count}.")
    if not 0 <= temperature < float("inf"):
        raise UsageError(f"--temperature must be a number from 0 on, got {temperature:g}.")
    check_device(device)
    check_seeds([seed])
    from iresnet_flows.experiments.images.runs import load_run
    from iresnet_flows.experiments.images.scores import (
        PICTURES,
        draw,
        keep_pictures,
        require_drawable,
        require_suffix,
    )

    path = out or run / "samples.png"
    require_suffix(path, PICTURES)
    made, model = load_run(run, device)
    require_drawable(path, made.shape[0])
    console = terminal()
    say_unfinished(console, run)
    with output_folder(path.parent):
        require_room(path.parent, count * math.prod(made.shape))
        with tracked(console, "samples") as track:
            drawn = draw(made, model, count, temperature, label, seed, track)
        keep_pictures(path, drawn)
    say_place(console, "The samples are in", path)


@app.command()
def score(
    run: Folder,
    data: Annotated[
        str,
        typer.Argument(help="mnist, cifar10, cifar100, or a folder of idx or CIFAR binary files."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .npy file for the score of each image.")
    ] = None,
    part: Annotated[str, typer.Option(help=f"Of the data: {', '.join(PARTS)}.")] = "test",
    data_dir: DataDir = None,
    device: Device = "cpu",
) -> None:
    """Score images: nats and bits per dimension, or the share that is classified wrongly."""
    if part not in PARTS:
        raise UsageError(f"--part must be one of {', '.join(PARTS)}, got {part!r}.")
    check_device(device)
    from iresnet_flows.experiments.images import scores
    from iresnet_flows.experiments.images.data import load_images
    from iresnet_flows.experiments.images.runs import load_run

    if out is not None:
        scores.require_suffix(out, scores.SCORES)
    made, model = load_run(run, device)
    images = getattr(load_images(data, data_dir), part)
    if not len(images):
        raise UsageError(f"{data} has no {part} images: name another --part.")
    console = terminal()
    say_unfinished(console, run)
    with output_folder(out.parent) if out is not None else nullcontext():
        with tracked(console, "scores") as track:
            found = scores.score(made, model, images, track)
        images_read = counted(len(images), f"{part} image")
        what = "mean and standard error, " if len(images) > 1 else ""
        for kind in found:
            console.print(f"{kind} ({what}{images_read})")
        if out is not None:
            scores.keep_scores(out, found)
            say_place(console, "The score of each image is in", out)


def say_unfinished(console: Console, run: Path) -> None:
    """Say of a training that has not come to its end that its weights are not the last."""
    from iresnet_flows.experiments.images.runs import is_finished

    if not is_finished(run):
        console.print(
            f"The training in {run} is not finished: these are the weights of its last "
            "checkpoint. Go on with it by --resume.",
            soft_wrap=True,
        )
