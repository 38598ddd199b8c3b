"""Tables from the files of a user: text, NumPy arrays and Parquet."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.csv_files import read_csv
from iresnet_flows.experiments.data.tables import Array, Columns, Table
from iresnet_flows.experiments.extras import optional

__all__ = ["SUFFIXES", "read", "read_npy", "read_parquet"]


def read_npy(path: Path) -> Table:
    """A table from a NumPy array of shape (N, d) of real numbers; nothing is unpickled.

    Raises:
        DataError: The file is damaged, or the array has another shape or another type.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OSError) as error:
        if "allow_pickle" in str(error):
            raise DataError(
                f"{path}: not an array of numbers but of Python objects, or no NumPy file at all: "
                "write it with numpy.save from an array of floats."
            ) from error
        raise _unreadable(path, "a NumPy array", error) from error

    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{path}: an archive of arrays: write one array with numpy.save.")

    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{path}: an array of {array.dtype}, not of real numbers: convert it to float64."
        )

    if array.ndim != 2 or array.shape[1] == 0:
        raise DataError(
            f"{path}: an array of shape {array.shape}, not (rows, columns): "
            "reshape it, for instance with array.reshape(len(array), -1)."
        )

    with np.errstate(over="ignore"):
        return Table(str(path), Columns.numbered(array.shape[1]), array.astype(np.float64))


def read_parquet(path: Path) -> Table:
    """A table from the columns of a Parquet file; an index that pandas has stored is left out.

    Raises:
        DataError: The file is damaged, or a column is not of numbers or has gaps.
        MissingExtra: pyarrow is not installed.
    """
    pyarrow = optional("pyarrow", "pyarrow")
    parquet = optional("pyarrow.parquet", "pyarrow")

    try:
        with parquet.ParquetFile(path) as file:
            frame = file.read()
        index = (frame.schema.pandas_metadata or {}).get("index_columns", [])
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise _unreadable(path, "Parquet", error) from error

    fields = [(name, frame.column(i)) for i, name in enumerate(frame.column_names)]
    fields = [(name, column) for name, column in fields if name not in index]
    if not fields:
        raise DataError(f"{path}: no columns: a data file needs rows of numbers.")

    columns = Columns(tuple(name for name, _ in fields))
    values = [_parquet_column(path, name, column) for name, column in fields]
    return Table(str(path), columns, np.stack(values, axis=1))


def _parquet_column(path: Path, name: str, column: Any) -> Array:
    """One column, (N,); a gap becomes NaN."""
    types = optional("pyarrow", "pyarrow").types
    numeric = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    if not any(is_a(column.type) for is_a in numeric):
        raise DataError(
            f"{path}: column {name!r} holds {column.type}, not numbers: remove or encode it."
        )

    numbers: Array = column.cast("float64", safe=False).to_numpy()
    return numbers


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": read_csv,
    ".npy": read_npy,
    ".parquet": read_parquet,
}

SUFFIXES = tuple(READERS)


def read(path: Path) -> Table:
    """The table in a file, read as its suffix says.

    Arguments:
        path: A `.csv`, `.npy` or `.parquet` file.

    Raises:
        DataError: There is no such file, it cannot be read, or what it holds is not a table of
            finite numbers. One line that names the place and the remedy.
        MissingExtra: The package that reads this kind of file is not installed.
    """
    known = ", ".join(SUFFIXES)

    # Unlike those of Path, these answer no for a name that is too long.
    if os.path.isdir(path):  # noqa: PTH112
        raise DataError(f"{path}: a folder: name one file in it ({known}).")

    if not os.path.exists(path):  # noqa: PTH110
        raise DataError(f"{path}: no such file (seen from {Path.cwd()}): check the path.")

    if path.suffix.lower() not in READERS:
        raise DataError(
            f"{path}: cannot read {path.suffix or 'a file without suffix'}: use {known}."
        )

    try:
        with path.open("rb") as file:
            empty = not file.read(1)
        if empty:
            raise DataError(f"{path}: empty: a data file needs rows of numbers.")

        return READERS[path.suffix.lower()](path)
    except OSError as error:
        raise _unreadable(path, "a file", error) from error


def _unreadable(path: Path, kind: str, error: BaseException) -> DataError:
    """The error for a file that another library has refused, in its words but on one line."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path}: cannot be read ({error.strerror}): check its permissions.")

    return DataError(f"{path}: cannot be read as {kind} ({reason}): write the file again.")
