"""Callback that shows the progress within each epoch, with the time left."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from ..progress import EpochProgress


class ProgressCallback(pl.Callback):
    """Shows the steps of the present epoch on standard error.

    Args:
        epochs: Number of epochs of the whole training.
    """

    def __init__(self, epochs: int) -> None:
        self._progress = EpochProgress(epochs)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self._progress = EpochProgress(trainer.max_epochs)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._progress.begin(trainer.current_epoch, trainer.num_training_batches)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self._progress.step(index + 1)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self._progress.close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self._progress.close()

    def teardown(self, trainer: Any, module: Any, stage: str) -> None:
        self._progress.close()
