"""Folders for temporary files. One that a killed process has left behind is removed when the next one is made.

The process that uses a folder holds a lock on it, which the system releases when the process ends, however it ends. So
a folder that can be locked is nobody's any more. This also holds between containers that share a file system.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: the folders are not locked, and those of a killed process stay
    fcntl = None  # type: ignore[assignment]

PREFIX = "nni-proxyless-work-"


class WorkFolder:
    """A new folder that is removed by `close`, at the end of a `with` block, with this object, or with the process.

    Args:
        parent: Folder in which it is made. Defaults to the system's folder for temporary files.
        prefix: Beginning of its name. Abandoned folders with this beginning are removed, and also those in the system's
            folder.
    """

    def __init__(self, parent: Path | None = None, prefix: str = PREFIX) -> None:
        usual = Path(tempfile.gettempdir())
        place = usual if parent is None else parent
        for searched, beginning in {(usual, PREFIX), (place, prefix)}:
            remove_abandoned(searched, beginning)
        made = None
        while made is None:  # somebody else may take a new folder for an abandoned one before it is locked
            made = _locked(tempfile.mkdtemp(prefix=prefix, dir=place))
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
    """Context manager in which this process makes its temporary files in a folder, those of libraries included."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def remove_abandoned(place: Path, prefix: str) -> None:
    """Remove this user's folders in `place` whose name has the prefix and that no process has locked."""
    if fcntl is None:
        return
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                        locked = _locked(entry.path)
                        if locked is not None:
                            _remove(*locked, os.getpid())


def _locked(path: str) -> tuple[Path, int] | None:
    """Lock a folder, and return it with its lock; `None` if somebody else has locked or removed it."""
    if fcntl is None:
        return Path(path), -1
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(path, follow_symlinks=False)):
            return Path(path), lock
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:  # a file system without locks: nobody takes the folder for an abandoned one
        return Path(path), lock
    os.close(lock)
    return None


def _remove(path: Path, lock: int, owner: int) -> None:
    if os.getpid() != owner:  # a process that was forked has the object too
        return
    shutil.rmtree(path, ignore_errors=True)
    if lock >= 0:
        with contextlib.suppress(OSError):
            os.close(lock)
