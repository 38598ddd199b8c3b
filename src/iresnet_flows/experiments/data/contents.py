"""The bytes of files, packed or not."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import torch
from torch import Tensor

from iresnet_flows.errors import DataError

__all__ = ["contents", "tensor"]

CHUNK = 2**20


def contents(path: Path) -> bytes:
    """All bytes of a file, unpacked if its name ends in `.gz`.

    Of a packed one that is cut off these are what is left.

    Raises:
        DataError: It cannot be read, or is not packed as its name says.
    """
    try:
        return unpacked(path) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path}: {path.stat().st_size} bytes that cannot be unpacked ({error}): fetch the "
            "file again."
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def unpacked(path: Path) -> bytes:
    parts = []
    with gzip.open(path) as file:
        try:
            while part := file.read1(CHUNK):
                parts.append(part)
        except EOFError:  # the reader of the contents knows how much is missing
            pass
    return b"".join(parts)


def tensor(data: bytes, start: int = 0) -> Tensor:
    """The bytes from there on, uint8 (N,), writable."""
    if len(data) <= start:
        return torch.zeros(0, dtype=torch.uint8)
    return torch.frombuffer(bytearray(data[start:]), dtype=torch.uint8)
