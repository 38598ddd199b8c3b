"""Built-in image data from where torchvision finds them."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.storage import write

__all__ = ["download"]


def download(name: str, folder: Path) -> bool:
    """Fetch a built-in set into the folder; whether it is there now.

    Without torchvision nothing is tried, and what a failed attempt has left is removed.

    Arguments:
        name: ``mnist``, ``cifar10`` or ``cifar100``.
        folder: Where its files are looked for.
    """
    try:
        from torchvision import datasets
    except ImportError:
        return False

    source, store = SOURCES[name]
    try:
        with tempfile.TemporaryDirectory() as scratch, redirect_stdout(StringIO()):
            parts = [
                getattr(datasets, source)(scratch, train=train, download=True)
                for train in (True, False)
            ]
    except (OSError, RuntimeError):  # no network, or not the file that was expected
        return False
    try:
        for part, begin in zip(parts, (True, False), strict=True):
            store(folder, begin, np.asarray(part.data), np.asarray(part.targets))
    except OSError as error:
        raise DataError(f"{name}: cannot be kept in {folder} ({error.strerror}).") from error
    return True


def store_idx(folder: Path, train: bool, pixels: Any, labels: Any) -> None:
    """Two idx files."""
    begin = "train" if train else "t10k"
    for kind, array in (("images-idx3", pixels), ("labels-idx1", labels)):
        header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        keep(folder / f"{begin}-{kind}-ubyte", header + array.astype(np.uint8).tobytes())


def store_cifar10(folder: Path, train: bool, pixels: Any, labels: Any) -> None:
    """Five binary files of training images, or one of test images."""
    records = joined_records(pixels, labels[:, None])
    for number, part in enumerate(np.array_split(records, 5 if train else 1), start=1):
        keep(folder / (f"data_batch_{number}.bin" if train else "test_batch.bin"), part.tobytes())


def store_cifar100(folder: Path, train: bool, pixels: Any, labels: Any) -> None:
    """One binary file; the coarse label, which torchvision leaves out, is zero."""
    records = joined_records(pixels, np.stack([np.zeros_like(labels), labels], 1))
    keep(folder / ("train.bin" if train else "test.bin"), records.tobytes())


def joined_records(pixels: Any, labels: Any) -> Any:
    """Records from pixels (N, H, W, C) and labels (N, bytes)."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([labels, planes], 1).astype(np.uint8)


def keep(path: Path, data: bytes) -> None:
    def save(part: Path) -> None:
        part.write_bytes(data)

    write(path, save)


SOURCES: dict[str, tuple[str, Callable[[Path, bool, Any, Any], None]]] = {
    "mnist": ("MNIST", store_idx),
    "cifar10": ("CIFAR10", store_cifar10),
    "cifar100": ("CIFAR100", store_cifar100),
}
