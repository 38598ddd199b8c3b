"""What a trained model is worth: read in batches, without gradients, with noise that is fixed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from iresnet_flows.experiments.images.batches import dequantised
from iresnet_flows.experiments.images.sets import Images
from iresnet_flows.experiments.images.tasks import bits, discrete_nats, scaled
from iresnet_flows.experiments.seeds import seeded
from iresnet_flows.experiments.terminal import Track

__all__ = ["BATCH", "bits_per_dim", "mean_and_error", "mistakes", "nats", "spoken", "test_error"]

BATCH = 250
SEED = 1


def test_error(model: nn.Module, images: Images, batch: int = BATCH) -> float:  # noqa: PT028
    """The share of images, 0 to 1, that a classifier gets wrong.

    Arguments:
        model: From images in [0, 1] to logits; it is read in eval mode, on its own device.
        images: The images.
        batch: How many are read at a time.
    """
    return float(mistakes(model, images, batch).mean())


def bits_per_dim(
    model: nn.Module, images: Images, conditional: bool = False
) -> tuple[float, float]:
    """The mean bits for each dimension of the whole pixels, and its standard error over images.

    Arguments:
        model: A `Density`; it is read in eval mode, on its own device.
        images: The images.
        conditional: Whether they are given their labels.
    """
    return mean_and_error(bits(nats(model, images, conditional), images.pixels))


def mistakes(model: nn.Module, images: Images, batch: int = BATCH, track: Track = iter) -> Tensor:
    """1 for each image that a classifier gets wrong and 0 for the others, (N,) float64."""
    classifier: Any = model
    joint = hasattr(model, "joint")

    def read(part: Images, noise: Tensor) -> Tensor:
        # A density that classifies too was trained on dequantised images.
        if joint:
            logits = classifier.joint(dequantised(part.pixels, noise))[1]
        else:
            logits = classifier(scaled(part.pixels))
        return logits.argmax(1) != part.labels

    return each(model, images, batch, read, track)


def nats(
    model: nn.Module, images: Images, conditional: bool = False, track: Track = iter
) -> Tensor:
    """-log P of each image, (N,) float64, bounded from above with one draw of the noise."""
    density: Any = model

    def read(part: Images, noise: Tensor) -> Tensor:
        labels = part.labels if conditional else None
        log_prob = density.log_prob(dequantised(part.pixels, noise), labels)
        return discrete_nats(log_prob.double(), noise)

    return each(model, images, BATCH, read, track)


def each(
    model: nn.Module,
    images: Images,
    batch: int,
    read: Callable[[Images, Tensor], Tensor],
    track: Track,
) -> Tensor:
    """What is read of each image; the model's mode and the random state are left as they were."""
    device = next(model.parameters()).device
    noise = torch.Generator().manual_seed(SEED)
    training = model.training
    found = [torch.zeros(0, dtype=torch.float64)]
    with torch.no_grad(), seeded(SEED, device):
        model.eval()
        for start in track(range(0, len(images), batch)):
            part = images[start : start + batch]
            u = torch.rand(part.pixels.shape, generator=noise).to(device)
            found.append(read(part.to(device), u).double().cpu())
        model.train(training)
    return torch.cat(found)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error, which is nan of a single value."""
    deviation = float(values.std()) if len(values) > 1 else math.nan
    return float(values.mean()), deviation / math.sqrt(len(values))


def spoken(mean: float, error: float, places: int) -> str:
    """A mean with its standard error, if there is one.

    >>> spoken(1.25, 0.5, 2), spoken(1.25, math.nan, 1)
    ('1.25 +- 0.50', '1.2')
    """
    return f"{mean:.{places}f}" + ("" if math.isnan(error) else f" +- {error:.{places}f}")
