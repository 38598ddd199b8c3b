"""Small recipes and small images, to train on in no time."""

from __future__ import annotations

import math
import struct

import torch
from torch import nn

from iresnet_flows import InvertibleResidualBlock, LipschitzConvNet
from iresnet_flows.experiments.images.recipes import Recipe
from iresnet_flows.experiments.images.sets import Images, split
from iresnet_flows.layers import ActNorm, Logit, Squeeze, Stack


class TinyDensity(nn.Module):
    """One residual block, between two layers of ActNorm."""

    def __init__(self, shape, classes, log_det=None):
        super().__init__()
        channels, height, width = shape
        self.latent = 4 * channels, height // 2, width // 2
        g = LipschitzConvNet(4 * channels, (6, 6), lipschitz=0.7)
        self.flow = Stack(
            [
                Logit(),
                Squeeze(),
                ActNorm(4 * channels),
                InvertibleResidualBlock(g, log_det),
                ActNorm(4 * channels),
            ]
        )
        self.means = nn.Embedding(classes or 1, 4 * channels)

    def log_prob(self, x, labels=None):
        z, log_abs_det = self.flow(x)
        return log_abs_det + self.of_latents(z, labels)

    def of_latents(self, z, labels):
        means = self.means.weight.mean(0) if labels is None else self.means(labels)
        z = z - means[..., None, None]
        return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)

    def joint(self, x):
        z, log_abs_det = self.flow(x)
        labels = torch.arange(self.means.num_embeddings)
        logits = torch.stack([self.of_latents(z, y.expand(len(z))) for y in labels], 1)
        return log_abs_det + logits.logsumexp(1) - math.log(len(labels)), logits

    def sample(self, count, temperature=1.0, labels=None, generator=None):
        z = temperature * torch.randn(count, *self.latent, generator=generator)
        means = self.means.weight.mean(0) if labels is None else self.means(labels)
        return self.flow.invert(z + means[..., None, None]).clamp(0, 1)


class TinyClassifier(nn.Module):
    """A convolution with batch statistics, and dropout, which draws from torch's generator."""

    def __init__(self, shape, classes):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(shape[0], 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Flatten(),
            nn.Linear(6 * shape[1] * shape[2], classes),
        )

    def forward(self, x):
        return self.layers(x)


def adam(parameters):
    return torch.optim.Adam(parameters, 1e-2)


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.05, momentum=0.9, weight_decay=1e-4)


DENSITY = Recipe(
    "tiny",
    "Tiny",
    "one residual block",
    TinyDensity,
    adam,
    batch=8,
    warmup=3,
    clip=1.0,
    average=0.9,
    shift=1,
    flip=True,
)
CLASSIFIER = Recipe(
    "tiny", "Tiny", "one convolution", TinyClassifier, sgd, batch=8, warmup=3, shift=1
)


def images(count=40, shape=(1, 4, 4), classes=3, seed=0):
    """Images whose brightness tells their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    dark = torch.randint(0, 100, (count, *shape), generator=generator)
    return Images((dark + 70 * labels[:, None, None, None]).to(torch.uint8), labels)


def write_folder(folder, shape=(1, 4, 4), test=12, labels=True):
    """A folder of idx files of the images that the cases train on, with their labels or not."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", 60, 0), ("t10k", test, 1)):
        part = images(count, shape, seed=seed)
        arrays = {"images-idx4": part.pixels}
        if labels:
            arrays["labels-idx1"] = part.labels
        for kind, array in arrays.items():
            header = struct.pack(f">4B{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(
                header + array.to(torch.uint8).numpy().tobytes()
            )
    return folder


def image_set(shape=(1, 4, 4), count=40):
    return split("tiny", images(count, shape), images(12, shape, seed=1), 3)
