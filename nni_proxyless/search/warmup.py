"""Warm-up of the weights, which is trained only once for all searches with the same warm-up.

The warm-up does not depend on the hardware target, because all paths are equally likely before the first architecture
step. So searches with the same space, data, seed and schedule share a checkpoint, whose name is a hash of everything
the warm-up depends on. The first search trains the warm-up and holds a lock. The other searches wait for the checkpoint
and start from it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock

from ..errors import WriteError
from ..files.resources import cache_folder
from ..files.writing import sweep, write_atomically, writing
from ..training.resume import usable

_log = logging.getLogger(__name__)


class SharedWarmup:
    """Warm-up that either has a checkpoint already, or must be trained by this process.

    Args:
        path: Path of the checkpoint.
        found: Whether there is a checkpoint that can be used.
        lock: Lock of the checkpoint. It is released at once if there is a checkpoint.

    Attributes:
        path: Path of the checkpoint, which may not exist yet.
        found: Whether the checkpoint existed when the search started.
    """

    def __init__(self, path: Path, found: bool, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self.found = found
        self._lock = lock
        if self.found:
            self._lock.release()

    def save(self, save_checkpoint: Callable[[Path], Any]) -> None:
        """Save the checkpoint, unless it exists already, and release the lock for the waiting searches.

        Args:
            save_checkpoint: Function that writes the checkpoint to a given path.
        """
        if not self.found and not self.path.is_file():
            try:
                write_atomically(self.path, save_checkpoint)
                _log.info("warm-up kept for searches that agree on it: %s", self.path)
            except WriteError as reason:
                _log.warning("%s; other searches train the warm-up themselves", reason)
        self._lock.release()


@contextmanager
def shared_warmup(
    depends_on: Mapping[str, Any], wait: bool = True, check: Callable[[Path], None] | None = None
) -> Iterator[SharedWarmup]:
    """Find the shared warm-up of a search. If it must be trained, hold its lock until it is saved.

    Args:
        depends_on: Everything that the weights after the warm-up depend on, as plain data.
        wait: Whether to wait while another process trains the warm-up. The other processes of the same search must not
            wait, because their main process holds the lock.
        check: Function that raises a `DamagedFileError` if a checkpoint cannot be used. The checkpoint is then renamed,
            and the warm-up is trained again.

    Yields:
        Shared warm-up. If the search fails before the warm-up is saved, the next waiting search trains it.
    """
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:24]
    path = cache_folder() / "warmups" / f"{digest}.ckpt"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    if wait:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.info("waiting for another search, which trains the same warm-up (%s)", path)
            lock.acquire()
    try:
        if lock.is_locked:
            sweep(path.parent, [path.name])
        found = path.is_file() and (check is None or usable(path, check, "the warm-up"))
        yield SharedWarmup(path, found, lock)
    finally:
        lock.release()
