"""Batches that are read several times: they are kept in memory if there are not too many of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import torch

from .accuracy import Batch

MOST_BYTES = 256 * 2**20


class KeptBatches:
    """The batches of a loader, which are read and prepared once if they fit into the memory that is allowed for them.

    Args:
        read: Function that reads the batches. It yields the same ones each time, such as those of a loader without
            augmentation and with a seed of its own.
        most_bytes: Largest size of all images together that is kept. A larger number of batches is read each time.
    """

    def __init__(self, read: Callable[[], Iterable[Batch]], most_bytes: int = MOST_BYTES) -> None:
        self._read = read
        self._most_bytes = most_bytes
        self._kept: list[Batch] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self._reading() if self._kept is None else iter(self._kept)

    def digest(self) -> str:
        """Compute a hash of all images and labels in their order, and of their division into batches."""
        found = hashlib.sha256()
        for batch in self:
            for part in batch:
                found.update(f"{part.dtype} {tuple(part.shape)}".encode())
                found.update(part.contiguous().numpy().data)
        return found.hexdigest()

    def _reading(self) -> Iterator[Batch]:
        kept: list[Batch] = []
        size = 0
        for images, labels in self._read():
            size += images.numel() * images.element_size()
            batch = images, labels
            if size > self._most_bytes:
                kept.clear()
            else:
                batch = images.contiguous(memory_format=torch.channels_last), labels
                kept.append(batch)
            yield batch
        if size <= self._most_bytes:
            self._kept = kept
