"""The warm-up of the weights, trained once for all searches that agree on it.

It does not depend on the hardware target: until the first architecture step all paths are equally likely. So searches
of one experiment that agree on space, data, seed and schedule share a checkpoint, whose name is the hash of all that it
depends on. The first one to come trains it, under a lock; others wait for it and go on from there.
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

from ..files import write_atomically
from ..resources import cache_folder

_log = logging.getLogger(__name__)


class SharedWarmup:
    """One warm-up: either there is a checkpoint of it, or this process is the one to train it.

    Attributes:
        path: Where its checkpoint lies, or will.
        found: Whether it was there.
    """

    def __init__(self, path: Path, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self.found = path.is_file()
        self._lock = lock
        if self.found:
            self._lock.release()

    def save(self, save_checkpoint: Callable[[Path], Any]) -> None:
        """Keep the checkpoint and let the others go on; does nothing if there is one already.

        Args:
            save_checkpoint: Writes it to a path.
        """
        if not self.found and not self.path.is_file():
            write_atomically(self.path, save_checkpoint)
            _log.info("warm-up kept for searches that agree on it: %s", self.path)
        self._lock.release()


@contextmanager
def shared_warmup(depends_on: Mapping[str, Any], wait: bool = True) -> Iterator[SharedWarmup]:
    """The warm-up that depends on just this.

    Args:
        depends_on: Everything that the weights after the warm-up depend on; plain data.
        wait: Wait until no other process trains it. A process that belongs to one that does must not.

    Yields:
        The warm-up. Should it fail before it is saved, the next in line trains it.
    """
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True, default=str).encode()).hexdigest()[:24]
    path = cache_folder() / "warmups" / f"{digest}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(f"{path}.lock")
    if wait:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            _log.info("waiting for another search, which trains the same warm-up (%s)", path)
            lock.acquire()
    try:
        yield SharedWarmup(path, lock)
    finally:
        lock.release()
