"""What a run says of images: their scores, and samples like them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from iresnet_flows.errors import IntegrationFailed, InverseNotConverged, UsageError
from iresnet_flows.experiments.images.batches import LEVELS
from iresnet_flows.experiments.images.evaluation import (
    BATCH,
    mean_and_error,
    mistakes,
    nats,
    spoken,
)
from iresnet_flows.experiments.images.runs import Run
from iresnet_flows.experiments.images.sets import Images
from iresnet_flows.experiments.images.tasks import bits
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.storage import write, write_text
from iresnet_flows.experiments.terminal import Track

__all__ = [
    "PICTURES",
    "SCORES",
    "Score",
    "draw",
    "grid",
    "keep_pictures",
    "keep_scores",
    "require_drawable",
    "require_suffix",
    "score",
]

MARGIN = 1
SCORES = (".csv", ".npy")
PICTURES = (".png", ".npy")


@dataclass(frozen=True, eq=False)
class Score:
    """One number for each image.

    Arguments:
        name: What it is.
        values: The numbers, (N,) float64.
        factor: By which they are shown.
        unit: What they are shown in.
    """

    name: str
    values: Tensor
    factor: float
    unit: str

    def __str__(self) -> str:
        return f"{spoken(*mean_and_error(self.factor * self.values), places=4)} {self.unit}"


def score(run: Run, model: nn.Module, images: Images, track: Track = iter) -> list[Score]:
    """Nats and bits/dim of each image, or whether it is classified wrongly, or all of it.

    Raises:
        UsageError: The images are none like those of the run, or lack the labels that it needs.
    """
    if images.shape != run.shape:
        raise UsageError(
            f"the images have the shape {images.shape}, and the run was trained on {run.shape}: "
            "score images of that shape."
        )
    if (run.kind == "classifier" or run.conditional) and not images.labelled:
        raise UsageError("the images have no labels, which this run cannot be scored without.")
    found = []
    if run.kind == "density":
        values = nats(model, images, run.conditional, track)
        found.append(Score("nats", values, 1.0, "nats"))
        found.append(Score("bits_per_dim", bits(values, images.pixels), 1.0, "bits/dim"))
    if run.classifies and images.labelled:
        found.append(Score("wrong", mistakes(model, images, track=track), 100.0, "% wrong"))
    return found


def require_suffix(path: Path, suffixes: tuple[str, str]) -> None:
    """Refuse a file of another kind, before the work that it is for.

    Raises:
        UsageError: The name ends otherwise.
    """
    if path.suffix not in suffixes:
        raise UsageError(f"--out must end in {' or '.join(suffixes)}, got {str(path)!r}.")


def keep_scores(path: Path, scores: list[Score]) -> None:
    """The scores of each image as `.csv`, or the first of them as `.npy`, (N,) float64.

    Raises:
        UsageError: The name ends otherwise.
    """
    require_suffix(path, SCORES)
    if path.suffix == ".npy":
        save_array(path, scores[0].values.numpy())
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["image", *(kind.name for kind in scores)])
    columns = [kind.values.tolist() for kind in scores]
    writer.writerows([index, *row] for index, row in enumerate(zip(*columns, strict=True)))
    write_text(path, text.getvalue())


def draw(
    run: Run,
    model: nn.Module,
    count: int,
    temperature: float,
    label: int | None,
    seed: int,
    track: Track = iter,
) -> Tensor:
    """Images of the model, uint8 (count, C, H, W).

    Raises:
        UsageError: The run is a classifier, or has no such label, or its latents at that
            temperature are of no image.
    """
    if run.kind != "density":
        raise UsageError("a classifier has no samples: name the run of a fit.")
    if label is not None:
        require_label(run, label)
    device = next(model.parameters()).device
    generator = Generator(device).manual_seed(seed)
    density: Any = model
    parts = []
    with torch.no_grad(), seeded(seed, device):
        for start in track(range(0, count, BATCH)):
            size = min(BATCH, count - start)
            labels = None if label is None else torch.full((size,), label, device=device)
            try:
                parts.append(quantised(density.sample(size, temperature, labels, generator)))
            except (InverseNotConverged, IntegrationFailed) as error:
                said = f"no samples at --temperature {temperature:g}: {error}"
                raise UsageError(said) from error
    return torch.cat(parts)


def quantised(values: Tensor) -> Tensor:
    """Pixels of values in [0, 1]."""
    return (values.cpu() * LEVELS).floor().clamp(0, LEVELS - 1).to(torch.uint8)


def require_label(run: Run, label: int) -> None:
    if not run.reads_labels:
        raise UsageError(
            "the run was trained without labels: leave out --label, or fit with --conditional or "
            "--hybrid."
        )
    if not 0 <= label < run.classes:
        raise UsageError(f"--label must be 0 to {run.classes - 1}, got {label}.")


def require_drawable(path: Path, channels: int) -> None:
    """Refuse a picture of images of so many channels, before the work that it is for.

    Raises:
        UsageError: It has neither one channel nor three.
    """
    if path.suffix == ".png" and channels not in (1, 3):
        raise UsageError(
            f"a picture has one channel or three, and the images have {channels}: give an --out "
            "that ends in .npy."
        )


def keep_pictures(path: Path, pixels: Tensor) -> None:
    """The images as `.npy`, uint8 (N, C, H, W), or as one `.png`, side by side in a square.

    Raises:
        UsageError: The name ends otherwise, or a picture has neither one channel nor three.
    """
    require_suffix(path, PICTURES)
    if path.suffix == ".npy":
        save_array(path, pixels.numpy())
        return
    require_drawable(path, pixels.shape[1])
    from matplotlib import image

    picture = np.ascontiguousarray(grid(pixels))
    write(path, lambda part: image.imsave(part, picture))


def grid(pixels: Tensor) -> Any:
    """Images (N, C, H, W) side by side, in as many columns as rows, uint8 (height, width, 3)."""
    count, channels, height, width = pixels.shape
    columns = max(1, int(np.ceil(np.sqrt(count))))
    rows = max(1, -(-count // columns))
    framed = pixels.new_zeros(rows * columns, channels, height + MARGIN, width + MARGIN)
    framed[:count, :, MARGIN:, MARGIN:] = pixels
    wide = framed.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    whole = wide.flatten(3, 4).flatten(1, 2)
    whole = nn.functional.pad(whole, (0, MARGIN, 0, MARGIN))
    return whole.movedim(0, -1).expand(-1, -1, 3).numpy()


def save_array(path: Path, array: Any) -> None:
    write(path, lambda part: np.save(part, array))
