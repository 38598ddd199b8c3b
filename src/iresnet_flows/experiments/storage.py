"""Files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iresnet_flows.errors import UsageError

__all__ = ["claim_folder", "output_folder", "read_json", "write", "write_json", "write_text"]


def output_folder(path: Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        UsageError: It cannot be made or written to.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file, and --out must be a folder: name another one.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be made: {error.strerror}. Name another --out."
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written to: change its rights or name another --out.")
    return path


def claim_folder(
    folder: Path, settings: dict[str, Any], resume: bool, contents: Sequence[str]
) -> None:
    """Make it the folder of these settings: the one that was left, or a clean one.

    Arguments:
        folder: The folder.
        settings: What the work is made of.
        resume: Go on with what is there.
        contents: The folders within that hold the work, and are cleared otherwise.

    Raises:
        UsageError: There is nothing to resume, or it was begun with other settings.
    """
    kept = folder / "settings.json"
    if resume:
        if not kept.exists():
            raise UsageError(f"nothing to resume in {folder}: leave out --resume.")
        before, now = read_json(kept), json.loads(json.dumps(finite(settings)))
        for name, value in now.items():
            if before.get(name) != value:
                raise UsageError(
                    f"{folder} was begun with {name} {before.get(name)}, not {value}: give the "
                    "same command, or leave out --resume to begin anew."
                )
        return

    for name in contents:
        if (folder / name).exists():
            shutil.rmtree(folder / name)
    write_json(kept, settings)


def write(path: Path, save: Callable[[Path], None]) -> None:
    """Save under a temporary name and rename, so that a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{path.suffix}")
    save(part)
    part.replace(path)


def write_text(path: Path, text: str) -> None:
    def save(part: Path) -> None:
        part.write_text(text, encoding="utf-8")

    write(path, save)


def write_json(path: Path, value: Any) -> None:
    """JSON with null for what is not a number."""
    write_text(path, json.dumps(finite(value), indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UsageError: It is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is damaged: delete it, or name another folder.") from error


def finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
