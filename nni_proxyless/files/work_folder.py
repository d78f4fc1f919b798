"""Folders for temporary files. One that a killed process has left behind is removed when the next one is made.

The process that uses a folder holds a lock on it, which the system releases when the process ends, however it ends. A
folder that can be locked is therefore abandoned. This also holds between containers that share a file system. Where the
system or the file system has no locks, the folders of killed processes stay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from . import file_lock
from .file_lock import Lock

PREFIX = "nni-proxyless-work-"
_searched: set[tuple[str, str]] = set()  # folders, with a prefix, that this process has searched for abandoned ones


class WorkFolder:
    """A new folder that is removed by `close`, at the end of a `with` block, with this object, or with the process.

    Args:
        parent: Folder in which it is made. Defaults to the system's folder for temporary files.
        prefix: Beginning of its name. Abandoned folders with this beginning are removed, and also those in the system's
            folder. A process searches each place once, because there may be many files.
    """

    def __init__(self, parent: Path | None = None, prefix: str = PREFIX) -> None:
        usual = Path(tempfile.gettempdir())
        place = usual if parent is None else parent
        for searched, beginning in {(usual, PREFIX), (place, prefix)}:
            key = (os.path.realpath(searched), beginning)
            if key not in _searched:
                _searched.add(key)
                remove_abandoned(searched, beginning)
        made = None
        while made is None:  # somebody else may take a new folder for an abandoned one before it is locked
            made = _taken(tempfile.mkdtemp(prefix=prefix, dir=place))
        self.path, lock = made
        self._remove = weakref.finalize(self, _remove, self.path, lock, os.getpid())

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._remove()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Context manager in which this process makes its temporary files in a folder, including those of libraries."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def remove_abandoned(place: Path, prefix: str) -> None:
    """Remove this user's folders in `place` whose name has the prefix and that this process could lock."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError, AttributeError):  # Windows has no numbers of users
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        state, handle = _locked(entry.path)
                        if state is Lock.HELD:
                            _remove(Path(entry.path), handle, os.getpid())


def _taken(path: str) -> tuple[Path, int] | None:
    """Return a folder that this process has made, with its lock; `None` if it was taken for an abandoned one."""
    state, handle = _locked(path)
    return None if state is Lock.BUSY else (Path(path), handle)


def _locked(path: str) -> tuple[Lock, int]:
    """Lock a folder. Return what came of it, and the handle that holds the lock, or -1.

    A folder that somebody else has removed counts as busy.
    """
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return Lock.NONE, -1
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return Lock.BUSY, -1
    state = file_lock.lock(handle)
    if state is Lock.HELD:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False)):
                return state, handle
        state = Lock.BUSY
    os.close(handle)
    return state, -1


def _remove(path: Path, lock: int, owner: int) -> None:
    if os.getpid() != owner:  # a process that was forked has the object too
        return
    shutil.rmtree(path, ignore_errors=True)
    if lock >= 0:
        with contextlib.suppress(OSError):
            os.close(lock)
