"""The binary files of CIFAR-10 and CIFAR-100: records of labels and 32 x 32 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.contents import contents, tensor
from iresnet_flows.experiments.images.sets import Images, require_classes

__all__ = ["CIFAR10", "CIFAR100", "Format", "format_of", "read_cifar"]

PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Format:
    """A kind of records.

    Arguments:
        classes: The number of classes.
        labels: The bytes of labels before the pixels, of which the last is the class.
    """

    classes: int
    labels: int

    @property
    def size(self) -> int:
        """The bytes of a record."""
        return self.labels + PIXELS


CIFAR10, CIFAR100 = Format(10, 1), Format(100, 2)


def format_of(path: Path) -> Format:
    """The format of a file, by its size; where both fit, by its name.

    The files hold no sizes: images of other sizes cannot be told from these and are refused.

    Raises:
        DataError: The size is that of no number of records.
    """
    size = len(contents(path)) if path.suffix == ".gz" else path.stat().st_size
    fitting = [known for known in (CIFAR10, CIFAR100) if size and size % known.size == 0]
    if not fitting:
        raise DataError(
            f"{path}: expected a multiple of {CIFAR10.size} bytes (a label and 3 x 32 x 32 "
            f"pixels) or of {CIFAR100.size} (two labels), found {size}: the file is cut off or "
            "damaged, or its images have another size, for which idx files are the format."
        )
    if len(fitting) > 1:
        return CIFAR100 if path.name in ("train.bin", "test.bin") else CIFAR10
    return fitting[0]


def read_cifar(path: Path, format: Format | None = None) -> Images:  # noqa: A002
    """The images of a file.

    Arguments:
        path: The file.
        format: That of its records; None to tell by its size.

    Raises:
        DataError: Its size is that of no number of records, or a label is no class.
    """
    known = format or format_of(path)
    data = contents(path)
    if not data or len(data) % known.size:
        raise DataError(
            f"{path}: expected a multiple of {known.size} bytes, one record for each image, "
            f"found {len(data)}: the file is cut off or damaged, fetch it again."
        )
    records = tensor(data).reshape(-1, known.size)
    labels = records[:, known.labels - 1].to(torch.int64)
    require_classes(str(path), labels, known.classes)
    pixels = records[:, known.labels :].reshape(-1, 3, 32, 32)
    return Images(pixels.contiguous(), labels)
