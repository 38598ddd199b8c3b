"""Image data by name or by folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from iresnet_flows.errors import DataError, unknown
from iresnet_flows.experiments.data.bundled import data_folder
from iresnet_flows.experiments.data.idx import read_idx_images, read_idx_labels
from iresnet_flows.experiments.images.cifar import CIFAR10, CIFAR100, Format, format_of, read_cifar
from iresnet_flows.experiments.images.downloads import download
from iresnet_flows.experiments.images.sets import UNKNOWN, Images, ImageSet, joined, split

__all__ = ["load_images", "names"]


@dataclass(frozen=True)
class BuiltIn:
    """A data set that is known by name.

    Arguments:
        classes: The number of classes.
        within: The folder of its files in that of the data set.
        files: Their names.
        read: Reads a folder.
    """

    classes: int
    within: str
    files: tuple[str, ...]
    read: Callable[[str, Path, int | None], ImageSet]


def names() -> tuple[str, ...]:
    """The names of the built-in sets.

    >>> names()
    ('mnist', 'cifar10', 'cifar100')
    """
    return tuple(BUILT_IN)


def load_images(name_or_folder: str | Path, data_dir: Path | None = None) -> ImageSet:
    """A built-in set of images, or that of a folder.

    A folder holds idx files, whose names begin with ``train`` and with ``t10k`` or ``test`` and
    tell ``images`` from ``labels``, which need not be there, packed by gzip or not, of images of
    any size and number of channels; or CIFAR binary files, ``data_batch*.bin`` or ``train*.bin``
    and ``test*.bin``, which hold no sizes, so that their images are of 3 x 32 x 32. A built-in
    name goes before a folder of the same name: `./mnist` is the folder.

    Arguments:
        name_or_folder: One of `names()`, or a folder.
        data_dir: Where the folders ``mnist/``, ``cifar10/`` and ``cifar100/`` are; without it
            that of the environment variable IRESNET_FLOWS_DATA, or `~/.cache/iresnet_flows`.

    Raises:
        DataError: There are no such data or they cannot be used. One line with the remedy.
    """
    name = os.fspath(name_or_folder)
    if name not in BUILT_IN:
        return from_folder(name)

    known = BUILT_IN[name]
    folder = data_folder(data_dir) / name
    found = place(folder, known)
    if found is None and untouched(folder, known) and download(name, folder / known.within):
        found = place(folder, known)
    if found is None:
        raise DataError(
            f"{name}: no {', '.join(missing(folder / known.within, known.files))} in "
            f"{folder / known.within}: put the files there (.gz will do), or name the folder that "
            f"holds {name}/ with --data-dir or IRESNET_FLOWS_DATA."
        )
    return known.read(name, found, known.classes)


def from_folder(name: str) -> ImageSet:
    """The set in a folder of the user's."""
    # Unlike that of Path, this one leaves the ~ of an unknown user as it is.
    folder = Path(os.path.expanduser(name))  # noqa: PTH111
    if not name or not os.path.isdir(folder):  # noqa: PTH112
        raise DataError(
            unknown("images", name, BUILT_IN, ", or a folder of idx or CIFAR binary files")
        )
    binary = any(file.name.removesuffix(".gz").endswith(".bin") for file in folder.iterdir())
    return (read_binary_folder if binary else read_idx_folder)(folder.name, folder, None)


def place(folder: Path, known: BuiltIn) -> Path | None:
    """Where all files of a built-in set are: in its inner folder or right in its own."""
    for here in places(folder, known):
        if not missing(here, known.files):
            return here
    return None


def untouched(folder: Path, known: BuiltIn) -> bool:
    """Whether a set has none of its files there, so that fetching it overwrites nobody's."""
    return all(missing(here, known.files) == [*known.files] for here in places(folder, known))


def places(folder: Path, known: BuiltIn) -> tuple[Path, Path]:
    return folder / known.within, folder


def missing(folder: Path, files: Sequence[str]) -> list[str]:
    """The files that are not there, packed or not."""
    return [
        name
        for name in files
        if not (folder / name).is_file() and not (folder / f"{name}.gz").is_file()
    ]


def read_idx_folder(name: str, folder: Path, classes: int | None) -> ImageSet:
    """The set of the idx files in a folder; without `classes` the labels tell how many."""
    train, test = (read_part(folder, begin) for begin in (("train",), ("t10k", "test")))
    if classes is None:
        classes = 1 + max(train.labels.tolist(), default=UNKNOWN)
    return split(name, train, test, classes)


def read_part(folder: Path, begin: tuple[str, ...]) -> Images:
    """The images of the files whose names begin so, with their labels if there are any."""
    images, labels = (file_of(folder, begin, kind) for kind in ("images", "labels"))
    if images is None:
        raise DataError(
            f"{folder}: no file {' or '.join(f'{start}*images*' for start in begin)}: a folder of "
            "images holds train-images-idx3-ubyte and t10k-images-idx3-ubyte, with "
            "train-labels-idx1-ubyte and t10k-labels-idx1-ubyte if there are labels, or CIFAR "
            "binary files."
        )
    pixels = read_idx_images(images)
    if labels is None:
        return Images.unlabelled(pixels)

    known = read_idx_labels(labels)
    if len(pixels) != len(known):
        raise DataError(
            f"{images} holds {len(pixels)} images and {labels} holds {len(known)} labels: "
            "they must be as many."
        )
    return Images(pixels, known)


def file_of(folder: Path, begin: tuple[str, ...], kind: str) -> Path | None:
    """The file whose name begins so and tells that kind; an unpacked one goes first."""
    found = (
        path
        for path in sorted(folder.iterdir(), key=lambda path: path.suffix == ".gz")
        if path.name.startswith(begin) and kind in path.name and path.is_file()
    )
    return next(found, None)


def read_binary_folder(name: str, folder: Path, classes: int | None) -> ImageSet:
    """The set of the CIFAR binary files in a folder; without `classes` their size tells."""
    files = {
        part: [path for start in begin for path in sorted(folder.glob(f"{start}*.bin*"))]
        for part, begin in (("train", ("data_batch", "train")), ("test", ("test",)))
    }
    for part, paths in files.items():
        if not paths:
            raise DataError(
                f"{folder}: no {part} images: a folder of CIFAR binary files holds "
                "data_batch_1.bin ... and test_batch.bin, or train.bin and test.bin."
            )
    formats: dict[int | None, Format] = {10: CIFAR10, 100: CIFAR100}
    known = formats.get(classes) or format_of(files["train"][0])
    train, test = (joined([read_cifar(path, known) for path in paths]) for paths in files.values())
    return split(name, train, test, known.classes)


BUILT_IN = {
    "mnist": BuiltIn(
        10,
        "",
        (
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ),
        read_idx_folder,
    ),
    "cifar10": BuiltIn(
        10,
        "cifar-10-batches-bin",
        (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
        read_binary_folder,
    ),
    "cifar100": BuiltIn(100, "cifar-100-binary", ("train.bin", "test.bin"), read_binary_folder),
}
