"""Lightning, told to show and keep nothing by itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from iresnet_flows.experiments.checkpoints import Checkpoints
from iresnet_flows.experiments.quietness import quiet

__all__ = ["train_module"]


def train_module(
    module: lightning.LightningModule,
    batches: Iterable[Any],
    clock: Callback,
    checkpoint: Path | None,
    **options: Any,
) -> None:
    """Train until the clock ends it, from the checkpoint if it is there.

    Arguments:
        module: What is trained, in place.
        batches: What it is trained on, again and again.
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
            trainer.fit(module, batches, ckpt_path=found, weights_only=True)
        except SystemExit as interrupted:  # what Lightning makes of Ctrl-C
            raise KeyboardInterrupt from interrupted
