"""Lightning, told to show and keep nothing by itself."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from iresnet_flows.experiments.quietness import quiet
from iresnet_flows.experiments.tensors import load_tensors

__all__ = ["train_module"]


class Checkpoints(TorchCheckpointIO):
    """Checkpoints of tensors alone; of another or a damaged file it says what to do."""

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """What is in the file, on the CPU.

        Raises:
            StorageError: It is damaged, or holds an object of another kind; that is not made.
        """
        return load_tensors(Path(path))


class Endless:
    """What Lightning goes through; the batches come from the number of the step."""

    def __iter__(self) -> Iterator[int]:
        return repeat(0)


def train_module(
    module: lightning.LightningModule,
    clock: Callback,
    checkpoint: Path | None,
    **options: Any,
) -> None:
    """Train until the clock ends it, from the checkpoint if it is there.

    Arguments:
        module: What is trained, in place; it knows the batch of a step by the step's number.
        clock: Keeps what is to be kept.
        checkpoint: What to go on from, or None.
        options: What else a `lightning.Trainer` is told.

    Raises:
        KeyboardInterrupt: As given, to the process or by the clock.
    """
    found = checkpoint if checkpoint is not None and checkpoint.exists() else None
    with quiet():
        trainer = lightning.Trainer(
            max_epochs=-1,
            callbacks=[clock],
            plugins=[Checkpoints()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **options,
        )
        try:
            trainer.fit(module, Endless(), ckpt_path=found, weights_only=True)
        except SystemExit as interrupted:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from interrupted
