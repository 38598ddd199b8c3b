"""Data by name or by path: the built-in sets and the files of a user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iresnet_flows.errors import DataError, unknown
from iresnet_flows.experiments.data.bundled import breast_cancer, digits, read_parts
from iresnet_flows.experiments.data.datasets import Dataset, joined, require_variation, split
from iresnet_flows.experiments.data.files import SUFFIXES, read
from iresnet_flows.experiments.data.pixels import read_pixels
from iresnet_flows.experiments.data.tables import Array, Table
from iresnet_flows.experiments.data.toys import TOYS, toy

__all__ = ["Dataset", "load", "names"]

# Below it float32 tells x from x + 1 in any column, also after standardisation.
LARGEST_WHOLE = 2**20

TABLES: dict[str, Callable[[], Table]] = {"digits": digits, "breast-cancer": breast_cancer}
DISCRETE = ("digits", "mnist")
FOLDERS: dict[str, Callable[[str, Path | None], dict[str, Table]]] = {
    "power": read_parts,
    "mnist": read_pixels,
}


def names() -> tuple[str, ...]:
    """The names of the built-in data sets.

    >>> names()[:3]
    ('two-moons', 'eight-gaussians', 'checkerboard')
    """
    return (*TOYS, *TABLES, *FOLDERS)


def load(name_or_path: str | Path, data_dir: Path | None = None) -> Dataset:
    """A built-in data set, or that of a file.

    A column of a file in which every entry is a whole number, up to 2^20 in size, is taken as
    discrete, for a density on points has no bound; any other one is continuous. A built-in name
    goes before a file of the same name: `./digits` is the file.

    Arguments:
        name_or_path: One of `names()`, or a `.csv`, `.npy` or `.parquet` file.
        data_dir: Where the folders `power/` and `mnist/` are; without it the folder that the
            environment variable IRESNET_FLOWS_DATA names, or `~/.cache/iresnet_flows`.

    Raises:
        DataError: There are no such data or they cannot be used. One line with the remedy.
        MissingExtra: A package that these data need is not installed.

    >>> data = load("checkerboard")
    >>> data.features, len(data.train), len(data.validation), len(data.test)
    (2, 9600, 1200, 1200)
    """
    name = os.fspath(name_or_path)

    if name in TOYS:
        return split(name, toy(name), discrete=False)

    if name in TABLES:
        return split(name, TABLES[name](), discrete=name in DISCRETE)

    if name in FOLDERS:
        return joined(name, **FOLDERS[name](name, data_dir), discrete=name in DISCRETE)

    _require_path(name)
    # Unlike that of Path, this one leaves the ~ of an unknown user as it is.
    return _from_file(Path(os.path.expanduser(name)))  # noqa: PTH111


def _from_file(path: Path) -> Dataset:
    """The data set of a file; a column that never changes is refused, of whole numbers too."""
    table = read(path)
    data = split(path.name, table, discrete=_whole(table.values))
    require_variation(table, data.train, data.discrete)

    return data


def _whole(values: Array) -> npt.NDArray[np.bool_]:
    """Which columns hold whole numbers alone, whose cells float32 can tell apart."""
    whole = (values == np.floor(values)) & (np.abs(values) <= LARGEST_WHOLE)
    return np.asarray(whole.all(axis=0))


def _require_path(name: str) -> None:
    """Refuses what is neither a path nor there; says which name may have been meant."""
    separators = {os.sep, os.altsep or os.sep}
    looks_like_a_path = Path(name).suffix or any(mark in name for mark in separators)
    if name and (looks_like_a_path or os.path.exists(name)):  # noqa: PTH110
        return

    raise DataError(unknown("data", name, names(), f", or a file ({', '.join(SUFFIXES)})"))
