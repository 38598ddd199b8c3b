"""Real data that come with scikit-learn, and the benchmark `power`, which comes as a folder."""

from __future__ import annotations

import os
from pathlib import Path

from iresnet_flows.errors import DataError
from iresnet_flows.experiments.data.files import read
from iresnet_flows.experiments.data.tables import Columns, Table
from iresnet_flows.experiments.extras import optional

__all__ = ["PARTS", "breast_cancer", "data_folder", "digits", "read_parts"]

PARTS = ("train", "validation", "test")


def digits() -> Table:
    """1797 scans of 8 x 8 pixels, whole numbers from 0 to 16 (Alpaydin and Kaynak, 1998).

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    return _scikit("digits", "load_digits")


def breast_cancer() -> Table:
    """30 measurements of 569 tumours (Wolberg et al., 1995).

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    return _scikit("breast-cancer", "load_breast_cancer")


def data_folder(data_dir: Path | None) -> Path:
    """Where data that the package does not bring are looked for.

    Arguments:
        data_dir: The folder; None for the one that the environment variable IRESNET_FLOWS_DATA
            names, and without it for `~/.cache/iresnet_flows`.
    """
    named = data_dir or os.environ.get("IRESNET_FLOWS_DATA") or "~/.cache/iresnet_flows"
    # Unlike that of Path, this one leaves the ~ of an unknown user as it is.
    return Path(os.path.expanduser(named))  # noqa: PTH111


def read_parts(name: str, data_dir: Path | None) -> dict[str, Table]:
    """The training, validation and test table of a data set that has its own split.

    Arguments:
        name: The name of the data, and of its folder; in it are `train.npy`, `validation.npy`
            and `test.npy`, each (N, d).
        data_dir: The folder in which that folder is, as in `data_folder`.

    Raises:
        DataError: A file is missing or cannot be used, or the parts differ in their columns.
    """
    folder = data_folder(data_dir) / name
    paths = {part: folder / f"{part}.npy" for part in PARTS}
    missing = [path.name for path in paths.values() if not path.is_file()]
    if missing:
        raise DataError(
            f"{name}: no {', '.join(missing)} in {folder}: put train.npy, validation.npy and "
            f"test.npy there, or name the folder that holds {name}/ with --data-dir or "
            "IRESNET_FLOWS_DATA."
        )

    tables = {part: read(path) for part, path in paths.items()}
    widths = {part: len(table.columns.names) for part, table in tables.items()}
    if len(set(widths.values())) > 1:
        found = ", ".join(f"{part} {width}" for part, width in widths.items())
        raise DataError(
            f"{name}: the files in {folder} differ in their number of columns ({found}): "
            "write all three from the same columns."
        )

    return tables


def _scikit(name: str, loader: str) -> Table:
    """The table of one of scikit-learn's data sets."""
    bunch = getattr(optional("sklearn.datasets", "scikit-learn"), loader)()
    columns = Columns(tuple(str(column) for column in bunch.feature_names))

    return Table(name, columns, bunch.data.astype("float64"))
