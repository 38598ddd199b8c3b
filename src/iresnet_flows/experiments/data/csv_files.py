"""Tables from text: comma, semicolon or tab between the fields, with or without a header.

NumPy's parser reads a sound file fast. What it refuses is read again line by line, which finds
the place and the words for an error.
"""

from __future__ import annotations

import csv
import re
import reprlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.tables import LARGEST, Array, Columns, Table, fault

__all__ = ["read_csv"]

# A byte-order mark, as spreadsheets write it, is no part of the first name.
ENCODING = "utf-8-sig"


@dataclass(frozen=True)
class Layout:
    """How a file is laid out, from its first row that is not blank.

    Arguments:
        path: The file.
        delimiter: What separates the fields.
        columns: The columns, from the header or counted in the first row.
        first: The line of that row, from 1.
        skip: The number of lines before the first data.
    """

    path: Path
    delimiter: str
    columns: Columns
    first: int
    skip: int

    @property
    def width(self) -> int:
        """The number d of columns."""
        return len(self.columns.names)


def read_csv(path: Path) -> Table:
    """A table from a text file.

    The first row is a header when none of its fields is a number. Rows are counted as the lines
    of the file, so that an error's row is the one that an editor shows.

    Arguments:
        path: The file, in UTF-8; lines that are blank are passed over.

    Raises:
        DataError: The file is empty or has only a header, is not text, or has a row of another
            width or an entry that is missing, not a number, not finite or beyond float32.
    """
    try:
        layout = _layout(path)
        values = _read_fast(layout)
        if values is None:
            values = np.array([_numbers(layout, *record) for record in _data(layout)])

    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text in UTF-8: save it as CSV in UTF-8.") from error
    except csv.Error as error:
        raise DataError(f"{path}: not readable as CSV ({error}): save it as CSV again.") from error

    return Table(str(path), layout.columns, values)


def _records(path: Path, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """The first and the last line of each row that is not blank, and its fields."""
    with path.open(encoding=ENCODING, newline="") as lines:
        reader = csv.reader(lines, delimiter=delimiter)
        first = 1
        for fields in reader:
            if len(fields) > 1 or "".join(fields).strip():
                yield first, reader.line_num, fields

            first = reader.line_num + 1


def _data(layout: Layout) -> Iterator[tuple[int, list[str]]]:
    """The line and the fields of each row of data; at least one."""
    empty = True
    for first, _, fields in _records(layout.path, layout.delimiter):
        if first > layout.skip:
            empty = False
            yield first, fields

    if empty:
        raise DataError(f"{layout.path}: only a header, no rows of data below row {layout.skip}.")


def _delimiter(path: Path) -> str:
    """The separator of the first row; a comma beside another one is a decimal comma."""
    with path.open(encoding=ENCODING) as lines:
        line = next((line for line in lines if line.strip()), "")

    unquoted = re.sub(r'"[^"]*"', "", line)
    return next((mark for mark in (";", "\t") if mark in unquoted), ",")


def _layout(path: Path) -> Layout:
    """The layout of a file, from its first row that is not blank."""
    delimiter = _delimiter(path)
    first, last, fields = next(_records(path, delimiter), (0, 0, []))
    if not fields:
        raise DataError(f"{path}: empty: a data file needs rows of numbers.")

    numbers = [_number(field) is not None for field in fields]
    if any(numbers):
        return Layout(path, delimiter, Columns.numbered(len(fields)), first, skip=first - 1)

    names = tuple(field.strip() for field in fields)
    if "" in names:
        raise DataError(
            f"{path}: row {first}: column {names.index('') + 1} has no name: name it in the "
            "header, or remove it if it only numbers the rows."
        )

    return Layout(path, delimiter, Columns(names), first, skip=last)


def _read_fast(layout: Layout) -> Array | None:
    """The entries, (N, d), of a sound file; None for a file in which something is wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            values = np.loadtxt(
                layout.path,
                delimiter=layout.delimiter,
                comments=None,
                quotechar='"',
                skiprows=layout.skip,
                encoding=ENCODING,
                ndmin=2,
            )
        except ValueError:
            return None

    sound = len(values) > 0 and values.shape[1] == layout.width
    return values if sound and bool((np.abs(values) <= LARGEST).all()) else None


def _number(entry: str) -> float | None:
    """The number that an entry writes, or None. Python's own `1_000` is not one."""
    try:
        return None if "_" in entry else float(entry)
    except ValueError:
        return None


def _numbers(layout: Layout, row: int, fields: list[str]) -> list[float]:
    """The numbers of one row, each of them sound."""
    if len(fields) != layout.width:
        raise DataError(
            f"{layout.path}: row {row} has {_count(len(fields))} where row {layout.first} has "
            f"{layout.width}: give every row the same number of fields."
        )

    numbers = []
    for index, entry in enumerate(fields):
        number = _number(entry)
        if number is None or not abs(number) <= LARGEST:
            trouble = _trouble(layout, row, entry) if number is None else fault(number)
            place = f"{layout.path}: row {row}, {layout.columns.label(index)}"
            raise DataError(f"{place} is {trouble}.")

        numbers.append(number)

    return numbers


def _trouble(layout: Layout, row: int, entry: str) -> str:
    """Why an entry is not a number, and what to do about it."""
    if not entry.strip():
        return "empty: fill the gap or remove the row"

    if _number(entry.replace(",", ".")) is not None:
        return f"{entry!r}, with a decimal comma: write it with a decimal point"

    if row == layout.first:
        return f"{reprlib.repr(entry)}, not a number: correct it, or let a header hold names only"

    return f"{reprlib.repr(entry)}, not a number: correct it, or remove or encode the column"


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"
