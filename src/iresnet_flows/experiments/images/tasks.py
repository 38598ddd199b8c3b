"""What a model is trained for: the loss of a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from iresnet_flows.experiments.images.batches import LEVELS, dequantised
from iresnet_flows.experiments.images.sets import Images

__all__ = [
    "Classification",
    "Hybrid",
    "Joint",
    "Likelihood",
    "Task",
    "bits",
    "discrete_nats",
    "scaled",
]


class Task(Protocol):
    """What a model is trained for."""

    def loss(self, model: nn.Module, images: Images, noise: Tensor) -> dict[str, Tensor]:
        """The loss, under that name, and whatever else the log should hold: scalars.

        Arguments:
            model: The model, in train mode.
            images: The batch, on the model's device.
            noise: Uniform noise like the pixels.
        """


class Joint(Protocol):
    """A density that classifies too."""

    def joint(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x), (B,), in nats, and the logits of the classes, (B, classes), from one pass."""


def discrete_nats(log_prob: Tensor, pixels: Tensor) -> Tensor:
    r"""The nats of whole pixels from the log-density of :math:`x = (k + u) / 256`.

    .. math:: -\log P(k) \leq \mathbb{E}_u[-\log p(x)] + d \log 256
    """
    return math.prod(pixels.shape[1:]) * math.log(LEVELS) - log_prob


def bits(nats: Tensor, pixels: Tensor) -> Tensor:
    """Bits for each dimension of the images."""
    return nats / (math.prod(pixels.shape[1:]) * math.log(2))


@dataclass(frozen=True)
class Likelihood:
    """Maximum likelihood; the loss is in bits for each dimension of the whole pixels.

    Arguments:
        conditional: Whether the density is that given the label.
    """

    conditional: bool = False

    def loss(self, model: Any, images: Images, noise: Tensor) -> dict[str, Tensor]:
        labels = images.labels if self.conditional else None
        log_prob = model.log_prob(dequantised(images.pixels, noise), labels)
        return {"loss": bits(discrete_nats(log_prob, images.pixels), images.pixels).mean()}


@dataclass(frozen=True)
class Classification:
    """Least cross-entropy of the labels, in nats."""

    def loss(self, model: nn.Module, images: Images, noise: Tensor) -> dict[str, Tensor]:
        logits = model(scaled(images.pixels))
        wrong = (logits.argmax(1) != images.labels).float().mean()
        return {"loss": F.cross_entropy(logits, images.labels), "error": wrong}


@dataclass(frozen=True)
class Hybrid:
    r"""Both at once, for a model that is `Joint`: bits per dimension :math:`+ \lambda` nats.

    Arguments:
        weight: The weight :math:`\lambda` of the cross-entropy.
    """

    weight: float = 1.0

    def loss(self, model: Any, images: Images, noise: Tensor) -> dict[str, Tensor]:
        if not hasattr(model, "joint"):
            raise ValueError("the density does not classify: take one that does, i-resnet-hybrid.")
        log_prob, logits = model.joint(dequantised(images.pixels, noise))
        density = bits(discrete_nats(log_prob, images.pixels), images.pixels).mean()
        labels = F.cross_entropy(logits, images.labels)
        wrong = (logits.argmax(1) != images.labels).float().mean()
        return {
            "loss": density + self.weight * labels,
            "bits_per_dim": density,
            "cross_entropy": labels,
            "error": wrong,
        }


def scaled(pixels: Tensor) -> Tensor:
    """Pixels as numbers from 0 to 1, float32."""
    return pixels.to(torch.float32) / (LEVELS - 1)
