"""Claims on folders and files of results, so that one process at a time writes them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import InputError, InUseError
from . import file_lock, results_folder
from .file_lock import Lock
from .writing import sweep, writing

_log = logging.getLogger(__name__)
LOCK = ".lock"
_SIGN_OF_LIFE_S = 60.0  # the holder of a lock touches its file this often
_GIVEN_UP_S = 600.0  # time without a touch after which the process of another machine counts as ended
_SAME_START_S = 2.0  # the clock of a machine may be set while a process runs
_HELPERS_END_S = 10.0  # processes that load data notice within 5 s that their parent was killed
_held: dict[Path, int] = {}  # thread that holds the lock of a folder in this process
_open: set[int] = set()


def _nearest(folder: Path) -> Path:
    """Return the absolute path of the folder if it exists, otherwise of the nearest one above it that does."""
    whole = folder.absolute()
    part = next(part for part in (whole, *whole.parents) if part.exists())
    if not part.is_dir():
        raise InputError(f"{folder} cannot be a folder, because {part} is a file; choose another one")
    return part


@dataclass(frozen=True)
class Owner:
    """A process that holds a lock, as the lock file describes it.

    Attributes:
        host: Name of its machine.
        boot: Identifies the start of its machine's system, which containers share; empty if it is not known.
        process: Number of the process.
        started: Time at which the process started, in seconds since the epoch.
    """

    host: str
    boot: str
    process: int
    started: float

    @classmethod
    def this(cls) -> Owner:
        """Describe this process."""
        return cls(socket.gethostname(), _boot(), os.getpid(), _started(os.getpid()) or 0.0)

    @property
    def elsewhere(self) -> bool:
        """Whether the process belongs to another machine, so that it cannot be seen from here."""
        return self.host != socket.gethostname() and (not self.boot or self.boot != _boot())

    @property
    def runs(self) -> bool:
        """Whether the process still runs here. Another process may have got its number since."""
        if self.boot != _boot():
            return False  # the machine has been restarted
        started = _started(self.process)
        return started is not None and abs(started - self.started) <= _SAME_START_S


@contextlib.contextmanager
def claimed(folder: Path, hint: str = "choose another folder with --output") -> Iterator[None]:
    """Make a folder of results, and keep all other processes from using it until the end.

    The lock of a process that was killed is taken over, and the temporary files that it has left are removed. If
    nothing is written, folders that were made are removed again. In the thread that holds the lock, this may be nested.

    Args:
        folder: Folder of the results.
        hint: What to do if another process uses the folder, for the message.

    Raises:
        InUseError: Another process uses the folder.
        InputError: A part of the path is a file.
        WriteError: The folder is not writable, or the disk is full.
    """
    key = folder.resolve()
    if _held.get(key) == threading.get_ident():
        yield
        return
    whole = folder.absolute()  # the working directory may change until the end
    with writing(folder):
        existing = _nearest(folder)
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK, f"the folder {folder}", hint):
            sweep(folder, results_folder.COLLECTED)
            _held[key] = threading.get_ident()
            try:
                yield
            finally:
                del _held[key]
    finally:
        for made in (whole, *whole.parents):
            if made == existing:
                break
            with contextlib.suppress(OSError):  # it is not empty
                made.rmdir()


@contextlib.contextmanager
def claimed_file(path: Path, hint: str = "choose another file with --out") -> Iterator[None]:
    """Keep all other processes from writing a file until the end. Missing folders above it are made.

    Args:
        path: Path of the file.
        hint: What to do if another process writes the file, for the message.

    Raises:
        InUseError: Another process writes the file.
        WriteError: The file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), f"the file {path}", hint):
        sweep(path.parent, [path.name])
        yield


@contextlib.contextmanager
def locked(lock: Path, what: str, hint: str) -> Iterator[None]:
    """Hold a lock file, which names this process. It is removed at the end.

    The operating system holds the lock (`flock`) and releases it when the process ends, however it ends. Where a file
    system has no such locks, and for the processes of other machines, the content of the file decides. The holder
    touches the file once a minute. If this process gets the lock, and a process of another machine has not touched the
    file for ten minutes, that process has ended, and the lock is taken over with a warning.

    Args:
        lock: Path of the lock file. Its folder must exist.
        what: What the lock protects, for messages.
        hint: What to do if another process holds the lock, for the message.

    Raises:
        InUseError: Another process holds the lock, or may hold it on another machine.
        WriteError: The file cannot be written.
    """
    whole, this = lock.absolute(), Owner.this()
    with writing(lock):
        handle = _acquire(lock, what, hint)
    _open.add(handle)
    ended = threading.Event()
    alive = threading.Thread(target=_stay_alive, args=(handle, ended), name="lock", daemon=True)
    try:
        with writing(lock):
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, (json.dumps(asdict(this)) + "\n").encode())
            os.fsync(handle)
        alive.start()
        yield
    finally:
        ended.set()
        if alive.ident is not None:
            alive.join()  # afterwards another file may get the number of the handle
        if handle in _open:  # not in a forked process
            _open.remove(handle)
            with contextlib.suppress(OSError):
                if _read(handle) in (None, this):  # not taken over while this process was suspended
                    whole.unlink()
            os.close(handle)


def _stay_alive(handle: int, ended: threading.Event) -> None:
    """Touch a lock file until the end, so that other machines see that its process is alive."""
    while not ended.wait(_SIGN_OF_LIFE_S):
        with contextlib.suppress(OSError, TypeError, NotImplementedError):  # Windows touches no open files
            os.utime(handle)


def _acquire(lock: Path, what: str, hint: str) -> int:
    """Return the open lock file, once no other process holds it."""
    waited_until = None
    while True:
        handle = _open_own(lock)
        try:
            state = file_lock.lock(handle)
            free = state is not Lock.BUSY
            owner = _read(handle)
            if owner is not None and owner.elsewhere:
                if state is Lock.HELD and _is(lock, handle) and _given_up(lock, handle):
                    _log.warning(
                        "%s was in use by process %d on the machine %s, which has given no sign of life for %d "
                        "minutes; it is taken over", what, owner.process, owner.host, _GIVEN_UP_S // 60,
                    )  # fmt: skip
                    return handle
                raise InUseError(
                    f"{what} is in use by process {owner.process} on the machine {owner.host}, which cannot be seen "
                    f"from here; if that process has ended, delete {lock}"
                )
            if owner is not None and owner.runs:
                raise InUseError(
                    f"{what} is in use by process {owner.process} on this machine ({owner.host}); wait until it has "
                    f"ended, or {hint}"
                )
            if free and _is(lock, handle):
                return handle
            # The holder is about to write its name, or the helpers of a killed one are about to end.
            waited_until = waited_until or time.monotonic() + _HELPERS_END_S
            if not free and time.monotonic() > waited_until:
                named = "another process" if owner is None else f"process {owner.process} of {owner.host}"
                raise InUseError(f"{what} is in use by {named}, which holds {lock}; {hint}")
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        time.sleep(0.05)


def _open_own(lock: Path) -> int:
    """Open a lock file, or make it. A link to another file is refused, because that file would be overwritten.

    Raises:
        InputError: The path is a link, or something other than a file.
    """
    flags = os.O_RDWR | os.O_CREAT
    for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC"):
        flags |= getattr(os, name, 0)
    link = InputError(f"{lock} is a link or a device, not the lock file that this package makes; delete it")
    if os.path.islink(lock):
        raise link
    handle = os.open(lock, flags, 0o666)  # fails if a link has been made meanwhile
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(handle)
        raise link
    return handle


def _given_up(lock: Path, handle: int) -> bool:
    """Whether a lock file was not touched for long, by the clock of its file system: those of machines differ."""
    with tempfile.TemporaryFile(dir=lock.parent) as new:
        return os.fstat(new.fileno()).st_mtime - os.fstat(handle).st_mtime > _GIVEN_UP_S


def _is(lock: Path, handle: int) -> bool:
    """Whether the open file is still the one of this name: its holder may have removed it just now."""
    try:
        return os.path.samestat(os.stat(lock), os.fstat(handle))
    except FileNotFoundError:
        return False


def _read(handle: int) -> Owner | None:
    try:
        os.lseek(handle, 0, os.SEEK_SET)
        content = json.loads(os.read(handle, 4096))
        host, boot = str(content["host"]), str(content["boot"])
        return Owner(host, boot, int(content["process"]), float(content["started"]))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _started(process: int) -> float | None:
    import psutil

    try:
        found = psutil.Process(process)
        return None if found.status() == psutil.STATUS_ZOMBIE else found.create_time()
    except (psutil.Error, ValueError, OverflowError):
        return None


def _close_in_child() -> None:
    # A forked process would otherwise keep the lock when its parent is killed.
    for handle in _open:
        os.close(handle)
    _open.clear()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
