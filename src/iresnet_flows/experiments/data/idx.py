"""Idx files, in which MNIST comes: arrays of bytes behind a header of their sizes."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch
from torch import Tensor

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.contents import contents, tensor

__all__ = ["read_idx", "read_idx_images", "read_idx_labels"]

BYTES = 8  # the code of unsigned bytes; MNIST has nothing else


def read_idx(path: Path) -> Tensor:
    """The array in an idx file of unsigned bytes, uint8, of one to four dimensions.

    The header is two zero bytes, the code 8 of unsigned bytes, the number of dimensions, and the
    size of each as four bytes, the highest first. A name that ends in `.gz` is unpacked.

    Raises:
        DataError: The file is no such file, or its size is not that of its header.
    """
    data = contents(path)
    if not data:
        raise DataError(f"{path}: is empty: fetch the file again or name another one.")
    magic = data[:4]
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != BYTES or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{path}: begins with the bytes {magic.hex(' ')}, and an idx file of "
            "unsigned bytes begins with 00 00 08 and the number of its dimensions, 01 to 04: "
            "fetch the file again or name another one."
        )
    start = 4 + 4 * magic[3]
    if len(data) < start:
        raise DataError(
            f"{path}: is cut off in its header: expected {start} bytes at least, found "
            f"{len(data)}. Fetch it again."
        )
    sizes = struct.unpack(f">{magic[3]}I", data[4:start])
    expected = start + math.prod(sizes)
    if len(data) != expected:
        raise DataError(
            f"{path}: expected {expected} bytes for an array of {' x '.join(map(str, sizes))}, "
            f"found {len(data)}: the file is cut off or damaged, fetch it again."
        )
    return tensor(data, start).reshape(sizes)


def read_idx_images(path: Path) -> Tensor:
    """Images, uint8 (N, C, H, W), of three dimensions (N, H, W), which are grey, or of four.

    Of four dimensions the channels are the second or the last one, whichever is smaller; the
    second where they are equal.

    Raises:
        DataError: The file holds no images.
    """
    array = read_idx(path)
    if array.dim() == 3:
        array = array.unsqueeze(1)
    elif array.dim() == 4 and array.shape[3] < array.shape[1]:
        array = array.movedim(3, 1).contiguous()
    if array.dim() != 4 or not all(array.shape[1:]):
        raise DataError(
            f"{path}: holds an array of {' x '.join(map(str, array.shape))}: images have three "
            "dimensions (count, height, width), or four with channels."
        )
    return array


def read_idx_labels(path: Path) -> Tensor:
    """Labels, int64 (N,).

    Raises:
        DataError: The file holds no labels.
    """
    array = read_idx(path)
    if array.dim() != 1:
        raise DataError(
            f"{path}: holds an array of {' x '.join(map(str, array.shape))}: labels have one "
            "dimension."
        )
    return array.to(torch.int64)
