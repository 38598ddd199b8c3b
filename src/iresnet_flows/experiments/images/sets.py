"""Sets of images, most of them labelled, split into training, validation and test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.images.recipes import Shape

__all__ = ["UNKNOWN", "ImageSet", "Images", "joined", "require_classes", "split"]

PART = 10
MOST = 5000
SPLIT_SEED = 0
UNKNOWN = -1


@dataclass(frozen=True, eq=False)
class Images:
    """Images and their labels.

    Arguments:
        pixels: uint8 (N, C, H, W).
        labels: int64 (N,), all of them `UNKNOWN` where there are none.

    Raises:
        DataError: They do not fit each other.
    """

    pixels: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.pixels.dim() != 4 or self.pixels.dtype != torch.uint8:
            raise DataError(
                f"pixels must be uint8 (N, C, H, W), got {self.pixels.dtype} "
                f"{tuple(self.pixels.shape)}."
            )
        if self.labels.shape != self.pixels.shape[:1] or self.labels.dtype != torch.int64:
            raise DataError(
                f"{len(self.pixels)} images need as many labels of int64, got "
                f"{self.labels.dtype} {tuple(self.labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | Tensor) -> Images:
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device) -> Images:
        """They on that device."""
        return Images(self.pixels.to(device), self.labels.to(device))

    @classmethod
    def unlabelled(cls, pixels: Tensor) -> Images:
        """Images of which nothing else is known."""
        return cls(pixels, torch.full((len(pixels),), UNKNOWN))

    @property
    def labelled(self) -> bool:
        """Whether their labels are known."""
        return not bool((self.labels == UNKNOWN).any())

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in three parts.

    Arguments:
        name: What reports call it.
        train: What models are trained on.
        validation: What choices are made by, from the training images of the source.
        test: What is read once.
        classes: The number of classes; labels are 0, ..., classes - 1. None without labels: 0.

    Raises:
        DataError: The parts differ in the shape of their images, only some have labels, the
            training part is empty, or a label is no class.
    """

    name: str
    train: Images
    validation: Images
    test: Images
    classes: int

    def __post_init__(self) -> None:
        if not len(self.train):
            raise DataError(f"{self.name}: no training images.")
        for part in (self.train, self.validation, self.test):
            if part.shape != self.shape:
                raise DataError(
                    f"{self.name}: training images of shape {self.shape} and others of shape "
                    f"{part.shape}: all must be alike."
                )
            if len(part) and part.labelled != bool(self.classes):
                raise DataError(
                    f"{self.name}: labels of training images or of test images only: give those "
                    "of both, or none."
                )
            if self.classes:
                require_classes(self.name, part.labels, self.classes)

    @property
    def shape(self) -> Shape:
        """Channels, height and width."""
        return self.train.shape

    def digest(self) -> str:
        """Of the training and validation images and labels; others have another one."""
        found = hashlib.sha256()
        for part in (self.train, self.validation):
            for values in (part.pixels, part.labels):
                found.update(repr(values.shape).encode())
                found.update(values.numpy().tobytes())
        return found.hexdigest()[:16]

    def all_for_training(self) -> ImageSet:
        """The same with the validation images among those for training, as in the papers."""
        return replace(self, train=joined([self.train, self.validation]))

    def subset(self, train: int | None = None, test: int | None = None) -> ImageSet:
        """The same with the first images of the training and test part only.

        They are a random draw of the training images, which `split` has permuted.
        """
        return replace(self, train=self.train[:train], test=self.test[:test])


def require_classes(where: str, labels: Tensor, classes: int) -> None:
    """Refuse labels that are no classes.

    Raises:
        DataError: One is out of range.
    """
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise DataError(
            f"{where}: label {int(labels[first])} of image {first} is out of range: "
            f"there are the classes 0 to {classes - 1}."
        )


def joined(parts: list[Images]) -> Images:
    """Several sets of images as one."""
    return Images(
        torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts])
    )


def split(name: str, train: Images, test: Images, classes: int) -> ImageSet:
    """A set whose validation part is split off the training images by a fixed permutation.

    It has a tenth of them, and at most 5000.

    Example:
        >>> import torch
        >>> images = Images(torch.zeros(50, 1, 8, 8, dtype=torch.uint8), torch.arange(50) % 3)
        >>> data = split("mine", images, images[:10], classes=3)
        >>> len(data.train), len(data.validation), len(data.test)
        (45, 5, 10)
    """
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(SPLIT_SEED))
    count = min(MOST, len(train) // PART)
    return ImageSet(name, train[order[count:]], train[order[:count]], test, classes)
