"""A strategy's part in Lightning's fit: its state goes into checkpoints, and its finalists are compared at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytorch_lightning as pl

from ..decoding.checkpoint import CHECKPOINT_KEY

if TYPE_CHECKING:
    from collections.abc import Mapping


class TakesPart(Protocol):
    """What a strategy does in the course of a fit."""

    def checkpoint(self) -> dict[str, Any]:
        """What `nni-proxyless decode` reads in a checkpoint."""

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside what Lightning saves."""

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `extra_state` gave."""

    def select_finalist(self, trainer: Any) -> None:
        """Compare the finalists, unless they have been compared."""


class StrategyCallback(pl.Callback):
    """Saves and restores a strategy's state, and starts the final selection when the last epoch has been trained.

    Args:
        strategy: The strategy.
    """

    def __init__(self, strategy: TakesPart) -> None:
        self._strategy = strategy

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the distribution over architectures and the strategy's own state."""
        state = checkpoint.setdefault(CHECKPOINT_KEY, self._strategy.checkpoint())
        state["strategy"] = self._strategy.extra_state()

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Give the strategy its state back."""
        self._strategy.load_extra_state(checkpoint.get(CHECKPOINT_KEY, {}).get("strategy", {}))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Compare finalists after the last epoch, before other callbacks record it."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._strategy.select_finalist(trainer)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Compare finalists where something else than `max_epochs` ended the search."""
        self._strategy.select_finalist(trainer)
