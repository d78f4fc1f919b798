"""Callback by which a strategy saves its state in Lightning's checkpoints and compares its finalists at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytorch_lightning as pl

from ..decoding.checkpoint import CHECKPOINT_KEY
from .search_state import check_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping


class TakesPart(Protocol):
    """Methods of a strategy that are called during a fit."""

    def checkpoint(self) -> dict[str, Any]:
        """Return the part of a checkpoint that `nni-proxyless decode` reads."""

    def extra_state(self) -> dict[str, Any]:
        """Return the state that Lightning does not save."""

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `extra_state` returned."""

    def select_finalist(self, trainer: Any) -> None:
        """Compare the finalists, unless they have already been compared."""

    def check_callbacks(self, trainer: Any) -> None:
        """Check whether callbacks wait for a metric that is never logged."""

    def check_epoch(self, trainer: Any, *, last: bool) -> None:
        """Check whether something could be learnt in an epoch, or in the whole search."""


class StrategyCallback(pl.Callback):
    """Saves and restores a strategy's state, checks each epoch, and starts the final selection after the last one.

    Args:
        strategy: Strategy of the search.
    """

    def __init__(self, strategy: TakesPart) -> None:
        self._strategy = strategy
        self._ended = False
        self._loaded = False

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the distribution over architectures and the strategy's own state to a checkpoint."""
        state = checkpoint.setdefault(CHECKPOINT_KEY, self._strategy.checkpoint())
        state["strategy"] = self._strategy.extra_state()

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Restore the strategy's own state."""
        self._loaded = True
        state = checkpoint.get(CHECKPOINT_KEY, {})
        check_candidates(state, self._strategy.checkpoint()["candidates"])
        self._strategy.load_extra_state(state.get("strategy", {}))

    @property
    def has_state(self) -> bool:
        """Whether the search has ended, or has taken over the state of an earlier one."""
        return self._ended or self._loaded

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Check the callbacks' metrics, now that all hooks of the first epoch have had the chance to log them."""
        if trainer.current_epoch == 1:
            self._strategy.check_callbacks(trainer)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Compare the finalists after the last epoch, before other callbacks record the result."""
        if trainer.current_epoch + 1 == trainer.max_epochs:
            self._end(trainer)
        else:
            self._strategy.check_epoch(trainer, last=False)

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Compare the finalists if the search has ended before `max_epochs`."""
        self._end(trainer)
        self._strategy.check_callbacks(trainer)

    def _end(self, trainer: Any) -> None:
        if not self._ended:
            self._ended = True
            self._strategy.check_epoch(trainer, last=True)
            self._strategy.select_finalist(trainer)
