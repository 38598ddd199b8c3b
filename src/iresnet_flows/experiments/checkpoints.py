"""How Lightning reads a checkpoint here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.plugins.io import TorchCheckpointIO

from iresnet_flows.experiments.tensors import load_tensors

__all__ = ["Checkpoints"]


class Checkpoints(TorchCheckpointIO):
    """Checkpoints of tensors alone; of another or a damaged file it says what to do."""

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """What is in the file, on the CPU.

        Raises:
            StorageError: It is damaged, or holds an object of another kind; that is not made.
        """
        return load_tensors(Path(path))
