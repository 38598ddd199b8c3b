"""MNIST as vectors: one column a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.bundled import data_folder
from iresnet_flows.experiments.data.datasets import SPLIT_SEED
from iresnet_flows.experiments.data.idx import read_idx_images
from iresnet_flows.experiments.data.tables import Columns, Table

__all__ = ["read_pixels"]

FILES = {"train": "train-images-idx3-ubyte", "test": "t10k-images-idx3-ubyte"}
SHARE = 6  # one in so many training images validates: 10000 of MNIST's 60000


def read_pixels(name: str, data_dir: Path | None) -> dict[str, Table]:
    """The training, validation and test table of the idx files of images in a folder.

    A sixth of the training images, by a fixed permutation, is for validation. Entries are whole
    numbers from 0 to 255.

    Arguments:
        name: The name of the data, and of its folder; the files in it may be packed by gzip.
        data_dir: The folder in which that folder is, as in `data_folder`.

    Raises:
        DataError: A file is missing or cannot be used, or the images differ in size.
    """
    folder = data_folder(data_dir) / name
    train, test = (read_rows(name, folder, file) for file in FILES.values())
    if train.columns != test.columns:
        raise DataError(
            f"{name}: the images in {folder} differ in size, {len(train.columns.names)} pixels in "
            f"{FILES['train']} and {len(test.columns.names)} in {FILES['test']}: fetch them again."
        )

    order = np.random.RandomState(SPLIT_SEED).permutation(len(train.values))
    validation, rest = np.split(train.values[order], [len(order) // SHARE])
    return {
        "train": Table(train.source, train.columns, rest),
        "validation": Table(train.source, train.columns, validation),
        "test": test,
    }


def read_rows(name: str, folder: Path, file: str) -> Table:
    """The images of a file, packed or not, as rows of pixels."""
    paths = [path for path in (folder / file, folder / f"{file}.gz") if path.is_file()]
    if not paths:
        raise DataError(
            f"{name}: no {file} in {folder}: put {' and '.join(FILES.values())} there (.gz will "
            f"do), or name the folder that holds {name}/ with --data-dir or IRESNET_FLOWS_DATA."
        )

    images = read_idx_images(paths[0])
    names = (",".join(map(str, index)) for index in np.ndindex(*images.shape[1:]))
    columns = Columns(tuple(f"pixel {index}" for index in names))
    return Table(str(paths[0]), columns, images.flatten(1).double().numpy())
