"""Loader of training images whose random numbers come from the seed of the running epoch, whatever Lightning does.

From version 2.1 on, Lightning makes the iterator of the first epoch, and that of the first epoch after a resume, before
it calls the hook in which an epoch is seeded. So this epoch would see its images in another order than the same epoch
of an uninterrupted run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nni
from torch.utils.data import DataLoader as TorchDataLoader


@nni.trace  # NNI's evaluator takes no other loader
class LateLoader(TorchDataLoader[Any]):
    """PyTorch's DataLoader, which draws its first random number when the first batch is read."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Return an iterator of one epoch, which begins at its first batch."""
        yield from super().__iter__()
