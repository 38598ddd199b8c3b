"""Training of one model."""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iresnet_flows.errors import UsageError
from iresnet_flows.experiments.commands.app import (
    DataDir,
    app,
    check_budget,
    check_device,
    check_seeds,
    interruptible,
)
from iresnet_flows.experiments.terminal import terminal

if TYPE_CHECKING:
    from iresnet_flows.experiments.images.training import Machine

__all__ = ["classify", "fit"]

MINUTES = 10.0
EPOCHS = 200

Data = Annotated[
    str,
    typer.Argument(help="mnist, cifar10, cifar100, or a folder of idx or CIFAR binary files."),
]
Scale = Annotated[str, typer.Option(help="The size of the model: quick, or paper.")]
Out = Annotated[Path, typer.Option(help="The folder of the run.")]
Minutes = Annotated[
    float | None, typer.Option(help=f"The budget in minutes. Default at quick: {MINUTES:g}.")
]
Steps = Annotated[int | None, typer.Option(help="The budget in steps.")]
Epochs = Annotated[
    int | None, typer.Option(help=f"The budget in epochs. Default at paper: {EPOCHS}.")
]
Seed = Annotated[int, typer.Option(help="Governs everything random.")]
Device = Annotated[str, typer.Option(help="cpu, gpu or auto.")]
Devices = Annotated[int, typer.Option(help="How many devices a node has.")]
Nodes = Annotated[int, typer.Option(help="How many nodes torchrun or SLURM has started.")]
Precision = Annotated[str, typer.Option(help="32, or bf16 or 16 for mixed precision.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")]


@app.command()
def fit(
    data: Data,
    model: Annotated[
        str, typer.Option(help="As i-resnet, maf or glow; a wrong name lists all.")
    ] = "i-resnet",
    scale: Scale = "quick",
    out: Out = Path("iresnet-run"),
    minutes: Minutes = None,
    steps: Steps = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = "32",
    conditional: Annotated[
        bool,
        typer.Option("--conditional", help="The density given the labels, of i-resnet-classes."),
    ] = False,
    hybrid: Annotated[
        float | None,
        typer.Option(help="Classify too, as i-resnet-hybrid can: the weight of the labels."),
    ] = None,
    resume: Resume = False,
) -> None:
    """Train a density model; sample and score read its run."""
    if conditional and hybrid is not None:
        raise UsageError("--conditional and --hybrid are two ways to use labels: give one.")
    if hybrid is not None and not 0 <= hybrid < float("inf"):
        raise UsageError(f"--hybrid must be a number from 0 on, got {hybrid:g}.")
    check_budget(steps, minutes, epochs)
    check_device(device)
    check_seeds([seed])
    # Lightning takes seconds to import, which --help need not.
    from iresnet_flows.experiments.images.training import Machine

    wanted = {
        "kind": "density",
        "model": model,
        "scale": scale,
        "seed": seed,
        "conditional": conditional,
        "hybrid": hybrid,
    }
    wanted |= budget_of(scale, steps, epochs, minutes)
    train_run(wanted, data, data_dir, out, Machine(device, devices, nodes, precision), resume)


@app.command()
def classify(
    data: Data,
    model: Annotated[
        str, typer.Option(help="As i-resnet or vanilla; a wrong name lists all.")
    ] = "i-resnet",
    scale: Scale = "quick",
    out: Out = Path("iresnet-run"),
    minutes: Minutes = None,
    steps: Steps = None,
    epochs: Epochs = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "cpu",
    devices: Devices = 1,
    nodes: Nodes = 1,
    precision: Precision = "32",
    resume: Resume = False,
) -> None:
    """Train a classifier; score reads its run."""
    check_budget(steps, minutes, epochs)
    check_device(device)
    check_seeds([seed])
    # Lightning takes seconds to import, which --help need not.
    from iresnet_flows.experiments.images.training import Machine

    wanted = {"kind": "classifier", "model": model, "scale": scale, "seed": seed}
    wanted |= budget_of(scale, steps, epochs, minutes)
    train_run(wanted, data, data_dir, out, Machine(device, devices, nodes, precision), resume)


def budget_of(
    scale: str, steps: int | None, epochs: int | None, minutes: float | None
) -> dict[str, Any]:
    """The budget that was asked for, or that of the scale."""
    if steps is None and epochs is None and minutes is None:
        minutes, epochs = (None, EPOCHS) if scale == "paper" else (MINUTES, None)
    return {"steps": steps, "epochs": epochs, "minutes": minutes}


def train_run(
    wanted: dict[str, Any],
    data: str,
    data_dir: Path | None,
    out: Path,
    machine: Machine,
    resume: bool,
) -> None:
    """Train on images, and say what it came to.

    Arguments:
        wanted: What a `Run` is made of, without what the data tell.
        data: The name or folder of the images.
        data_dir: Where built-in sets are.
        out: The folder of the run.
        machine: What it runs on.
        resume: Go on with what is in the folder.
    """
    from iresnet_flows.experiments.images.data import load_images
    from iresnet_flows.experiments.images.runs import Run
    from iresnet_flows.experiments.images.sessions import begin, perform, verdict
    from iresnet_flows.experiments.images.training import first_rank
    from iresnet_flows.experiments.machines import keep_freed_memory
    from iresnet_flows.experiments.storage import alone_in

    refuse_vectors(data)
    images = load_images(data, data_dir)
    run = Run(
        **wanted,
        shape=images.shape,
        classes=images.classes,
        data=data,
        precision=machine.precision,
        images=images.digest(),
    )
    begin(run, images, out, machine, resume)
    console = terminal(quiet=not first_rank())
    keep_freed_memory()
    with alone_in(out) if first_rank() else nullcontext(), interruptible(out, console):
        trained = perform(run, images, out, machine, resume, console)
    if first_rank():
        console.print(verdict(run, trained, images))
        command = shlex.join(["iresnet-flows", "score", str(out), data])
        console.print(f"The run is in {out}; read it with: {command}", soft_wrap=True)


def refuse_vectors(data: str) -> None:
    """Say what to do with data that are no images."""
    from iresnet_flows.experiments.data import names
    from iresnet_flows.experiments.data.files import SUFFIXES
    from iresnet_flows.experiments.images.data import names as image_names

    if data in set(names()) - set(image_names()) or Path(data).suffix in SUFFIXES:
        raise UsageError(
            f"{data} holds vectors, and this command trains on images: use compare for vectors."
        )
