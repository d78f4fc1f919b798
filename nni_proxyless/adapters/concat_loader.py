"""NNI's loader for ENAS on current versions of pytorch-lightning, without their private classes.

NNI's own `ConcatLoader` is built from private classes of pytorch-lightning 2.0, which later versions have changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pytorch_lightning.utilities.combined_loader import CombinedLoader

__all__ = ["ConcatLoader"]


class ConcatLoader(CombinedLoader):
    """Loader that goes through several loaders, one after the other.

    It yields what NNI's own yields: the batch, its index within its loader, and the index of the loader.

    A trainer of pytorch-lightning 2.1 or newer takes such a triple apart, and gives the first part to `training_step`.
    There, NNI's ENAS expects the whole triple. A trainer sets `limits` before it reads batches, so from then on, the
    first part is the triple itself. The other parts number all batches of the epoch.

    Args:
        iterables: Collection of loaders, such as a dictionary.
    """

    def __init__(self, iterables: Any) -> None:
        # The name of a mode that trainers accept. How batches are combined is written below.
        super().__init__(iterables, "max_size_cycle")
        self._batches: Iterator[Any] = iter(())

    def __iter__(self) -> ConcatLoader:
        self._batches = self._in_turn()
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def __len__(self) -> int:
        """Return the number of batches of all loaders, within the trainer's limits.

        Raises:
            TypeError: A loader does not know its length.
        """
        return int(sum(min(len(loader), most) for loader, most in zip(self.flattened, self._most(), strict=True)))

    def reset(self) -> None:
        """Stop reading, and end the workers of all loaders."""
        self._batches = iter(())
        super().reset()

    def _most(self) -> list[int | float]:
        """Return the largest number of batches of each loader."""
        return self.limits or [float("inf")] * len(self.flattened)

    def _in_turn(self) -> Iterator[Any]:
        position = 0
        for which, (loader, most) in enumerate(zip(self.flattened, self._most(), strict=True)):
            if most <= 0:
                continue
            for index, batch in enumerate(loader):
                triple = (batch, index, which)
                yield triple if self.limits is None else (triple, position, 0)
                position += 1
                if index + 1 >= most:
                    break
