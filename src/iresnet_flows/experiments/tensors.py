"""Tensors and arrays from files that may be anybody's: nothing else is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from iresnet_flows.errors import StorageError

__all__ = ["load_arrays", "load_tensors"]

REFUSED = (
    "{} is damaged, or holds more than {}, and no other pickle is loaded: delete it, "
    "or name another folder."
)


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` has written: tensors, numbers and strings, in lists and dictionaries.

    Arguments:
        path: A file of weights or a checkpoint.

    Raises:
        StorageError: It is damaged, or holds an object of another kind; that is not made.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, OSError) as error:
        raise StorageError(REFUSED.format(path, "tensors")) from error


def load_arrays(path: Path) -> Any:
    """The array in a ``.npy`` file, or the dictionary of those in an ``.npz`` archive.

    Arguments:
        path: The file.

    Raises:
        StorageError: It is damaged, or holds Python objects; those are not made.
    """
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            return found if isinstance(found, np.ndarray) else dict(found)
    except (ValueError, EOFError, OSError, BadZipFile) as error:
        raise StorageError(REFUSED.format(path, "arrays of numbers")) from error
