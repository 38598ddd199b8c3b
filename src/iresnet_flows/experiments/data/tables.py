"""Tables of finite numbers, and the words to speak of a place in one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iresnet_flows.errors import DataError

__all__ = ["LARGEST", "Array", "Columns", "Table", "fault"]

Array = npt.NDArray[np.float64]

LARGEST = float(np.finfo(np.float32).max)


def fault(value: float) -> str | None:
    """What is wrong with an entry and what to do; None for a finite number that float32 holds."""
    if math.isnan(value):
        return "NaN: fill the gap or remove the row"

    if math.isinf(value):
        return "infinite: correct the entry or remove the row"

    if abs(value) > LARGEST:
        return f"{value:g}, beyond the range of float32 ({LARGEST:.1e}): rescale the column"

    return None


@dataclass(frozen=True)
class Columns:
    """The names of a table's columns.

    Arguments:
        names: One name a column.
        given: Whether the source has named them. Those of a source without a header are called
            `x1`, `x2`, ... and errors count them instead: `column 2`.
    """

    names: tuple[str, ...]
    given: bool = True

    @classmethod
    def numbered(cls, count: int) -> Columns:
        """The columns of a source that has no names."""
        return cls(tuple(f"x{index + 1}" for index in range(count)), given=False)

    def label(self, index: int) -> str:
        """How an error calls the column of this index, counted from 0."""
        return f"column {self.names[index]!r}" if self.given else f"column {index + 1}"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of finite numbers, each within the range of float32.

    Arguments:
        source: What errors call the table: a path as the user gave it, or a name.
        columns: The d columns.
        values: The entries, (N, d) float64.

    Raises:
        DataError: An entry is NaN, infinite or beyond float32. Rows count from 1.
    """

    source: str
    columns: Columns
    values: Array

    def __post_init__(self) -> None:
        sound = np.abs(self.values) <= LARGEST
        if sound.all():
            return

        row, column = (int(index) for index in np.argwhere(~sound)[0])
        raise DataError(
            f"{self.source}: row {row + 1}, {self.columns.label(column)} is "
            f"{fault(float(self.values[row, column]))}."
        )
