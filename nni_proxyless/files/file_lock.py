"""Locks of the operating system on open files and folders. The system releases them when their process ends."""

from __future__ import annotations

from enum import Enum, auto

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Lock(Enum):
    """Result of trying to lock a file.

    Attributes:
        HELD: This process holds the lock now.
        BUSY: Another open file holds the lock.
        NONE: The system or the file system has no such locks, so nothing is known about other processes.
    """

    HELD = auto()
    BUSY = auto()
    NONE = auto()


def lock(handle: int) -> Lock:
    """Lock an open file or folder for this process alone, without waiting. Closing the handle releases the lock."""
    if fcntl is None:
        return Lock.NONE
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Lock.BUSY
    except OSError:  # NFS answers EBADF for folders, Lustre ENOTSUP or ENOSYS, and others ENOLCK
        return Lock.NONE
    return Lock.HELD
