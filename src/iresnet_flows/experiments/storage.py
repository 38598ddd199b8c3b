"""Files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from iresnet_flows.errors import DataError, StorageError, UsageError

__all__ = [
    "SETTINGS",
    "alone_in",
    "claim_folder",
    "claim_part",
    "nothing_to_resume",
    "output_folder",
    "read_json",
    "reading",
    "require_room",
    "write",
    "write_json",
    "write_text",
]

SETTINGS = "settings.json"
LOCK = ".in-use"


@contextmanager
def output_folder(path: Path) -> Iterator[Path]:
    """The folder, made where it is missing; work that is refused leaves none that is empty.

    Raises:
        UsageError: It cannot be made or written to.
    """
    made = not path.exists()
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, and a folder is needed: name another --out.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be made: {error.strerror}. Name another --out."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written to: change its rights or name another --out.")
    try:
        yield path
    except (DataError, UsageError):
        if made and not any(path.iterdir()):
            path.rmdir()
        raise


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """The only command at work in the folder, with the processes that it starts.

    The system's lock tells, which ends with the process in whatever way that ends.

    Raises:
        UsageError: Another is at work in it.
    """
    if sys.platform == "win32":  # which has no such lock
        yield
        return
    from fcntl import LOCK_EX, LOCK_NB, flock

    path = folder / LOCK
    with path.open("a+") as file:
        with suppress(OSError):  # some file systems of clusters have none
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise UsageError(
                    f"process {file.read() or 'unknown'} is at work in {folder}: wait for its "
                    "end, or name another --out."
                ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def claim_folder(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """Make it the folder of these settings: the one that was left, or a new one.

    Arguments:
        folder: The folder.
        settings: What the work is made of.
        resume: Go on with what is there.

    Raises:
        UsageError: There is nothing to resume, it was begun with other settings, or there is
            work that `resume` does not ask for, of which nothing is deleted.
    """
    kept = folder / SETTINGS
    if resume:
        if not kept.exists():
            raise nothing_to_resume(folder)
        now = json.loads(json.dumps(finite(settings)))
        with reading(kept):
            before = dict(read_json(kept))
        for name, value in now.items():
            if before.get(name) != value:
                raise UsageError(
                    f"{folder} was begun with {name} {before.get(name)}, not {value}: give the "
                    "same command on the same data, or name another --out."
                )
        return

    if kept.exists():
        raise UsageError(
            f"{folder} holds a run already: go on with it by --resume, name another --out, or "
            "delete that folder to begin anew."
        )
    write_json(kept, settings)


def nothing_to_resume(folder: Path) -> UsageError:
    return UsageError(f"nothing to resume in {folder}: leave out --resume.")


def claim_part(folder: Path, settings: dict[str, Any], resume: bool) -> None:
    """As `claim_folder`, for one of several: to resume what was never begun is to begin it."""
    claim_folder(folder, settings, resume and (folder / SETTINGS).is_file())


def require_room(folder: Path, size: int) -> None:
    """Refuse what its disk cannot hold, before the work that would fill it.

    Arguments:
        folder: Where a file will be.
        size: Its bytes.

    Raises:
        UsageError: The disk has less.
    """
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UsageError(
            f"{size / 1e9:.3g} GB are needed and the disk of {folder} has {free / 1e9:.3g} GB: "
            "ask for less, or name another --out."
        )


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Save under a temporary name and rename, so that a reader never meets half a file.

    Raises:
        StorageError: The disk is full, or refuses.
    """
    part = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(part)
        part.replace(path)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        with suppress(OSError):
            part.unlink()
        said = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise StorageError(
            f"{path} cannot be written: {said}. Free some space or mend its rights, and give the "
            "same command again, or name another --out."
        ) from error


def write_text(path: Path, text: str) -> None:
    def save(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    write(path, save)


def write_json(path: Path, value: Any) -> None:
    """JSON with null for what is not a number."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Tells in one line that a file, which is taken apart within, is not as a command wrote it.

    Raises:
        StorageError: It is damaged, or of another version.
    """
    try:
        yield
    except UsageError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise StorageError(f"{path} is damaged: delete it, or name another folder.") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        StorageError: It is no JSON.
    """
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8"))


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
