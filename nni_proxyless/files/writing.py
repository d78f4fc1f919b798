"""Atomic writing of this package's small files: text, YAML, JSON and CSV. `files/reading.py` reads them."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from ..errors import OF_THE_MACHINE, InputError, UnwritablePathError, WriteError, clipped, shown
from . import file_lock
from .file_lock import Lock
from .reading import read_mapping as read_mapping

LONGEST_NAME = 100
_SEPARATORS = "/\\"
_DRAWN, _PART = "[a-z0-9_]{8}", ".part"  # names of temporary files end with eight drawn characters and this
_searched: set[tuple[str, str]] = set()  # folders and names of the files whose abandoned temporary files are removed


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> Path:
    """Write a temporary file in the folder of `path` and rename it, so that readers never see a partial file.

    The content is on the disk before the file gets its name, so it survives a power failure as well.

    Args:
        path: Path of the file. Missing parent folders are created.
        write: Function that writes the content to the path that it is given, that of the temporary file.

    Returns:
        Path of the file.

    Raises:
        WriteError: The file cannot be written. An earlier file of this name is as it was before.
        UnwritablePathError: Nothing can be written to this path.
    """
    target = Path(path)
    with writing(target, atomically=True):
        _check_kind(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary, lock = _temporary(target)
        try:
            write(temporary)
            # mkstemp makes the file readable by its owner only. The result gets the permissions of an ordinary file.
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            _to_disk(temporary)
            os.replace(temporary, target)
            with suppress(OSError):  # some file systems, and Windows, do not synchronise folders
                _to_disk(target.parent, os.O_RDONLY)
        finally:
            temporary.unlink(missing_ok=True)
            if lock is not None:
                os.close(lock)
    return target


def _temporary(target: Path) -> tuple[Path, int | None]:
    """Make the temporary file of a file, and return its path and a handle that holds its lock until it is closed.

    The handle is `None` where the system has no locks, and then nothing is ever removed.

    The system releases the lock when the process ends, however it ends. So a temporary file that can be locked was left
    by a killed process, and is removed here. This process looks for such files once for each file that it writes.
    """
    searched = os.path.realpath(target.parent), target.name
    if searched not in _searched:
        _searched.add(searched)
        _remove_abandoned(target)
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=_PART, dir=target.parent)
        # Another process may have taken it for an abandoned one before it was locked.
        state = file_lock.lock(handle)
        if state is Lock.HELD and _is(name, handle):
            return Path(name), handle
        os.close(handle)
        if state is Lock.NONE:
            return Path(name), None


def _remove_abandoned(target: Path) -> None:
    """Remove this user's temporary files of a file that no living process has locked."""
    form = re.compile(re.escape(f".{target.name}.") + f"{_DRAWN}{re.escape(_PART)}")
    with suppress(OSError, AttributeError), os.scandir(target.parent) as entries:  # Windows has no numbers of users
        for entry in entries:
            if form.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                with suppress(OSError):
                    handle = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW)
                    try:
                        if file_lock.lock(handle) is Lock.HELD and _is(entry.path, handle):
                            os.unlink(entry.path)
                    finally:
                        os.close(handle)


def _is(path: str, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def _check_kind(target: Path) -> None:
    """Check that a file would replace no device, pipe or socket: renaming would remove `/dev/null` itself."""
    if os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target):
        raise OSError(errno.EINVAL, "it is a device, pipe or socket, not a file", str(target))
    if os.path.realpath(target.parent) == "/dev":
        raise OSError(errno.EPERM, "files are not written among the devices", str(target))


def _to_disk(path: Path, access: int = os.O_RDWR) -> None:
    # Windows synchronises only files that are open for writing.
    try:
        handle = os.open(path, access)
    except PermissionError:  # the umask makes new files read-only
        handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def writing(target: Path, *, atomically: bool = False) -> Iterator[None]:
    """Context manager that raises errors of the file system as errors in writing a file or folder.

    Errors of other files, which are read meanwhile, remain as they are.

    Args:
        target: Path of the file or folder.
        atomically: Whether an earlier file remains if it cannot be replaced, so that the message may say so.

    Raises:
        WriteError: The file or folder cannot be written.
        UnwritablePathError: Nothing can be written to this path.
    """
    try:
        yield
    except (WriteError, UnwritablePathError):
        raise
    except OSError as reason:
        where = None if reason.filename is None else Path(os.fsdecode(reason.filename))
        if where is not None and where.parent != target.parent and where != target and where not in target.parents:
            raise
        if isinstance(reason, (FileExistsError, NotADirectoryError)) and where is not None and os.path.isfile(where):
            raise UnwritablePathError(f"cannot write {target}: {where} is a file, not a folder") from reason
        kept = "; the file that was there before is untouched" if atomically and os.path.isfile(target) else ""
        error = WriteError if reason.errno in OF_THE_MACHINE else UnwritablePathError
        raise error(f"cannot write {target}: {reason.strerror or reason}{kept}") from reason


def sweep(folder: Path, names: Collection[str]) -> None:
    """Remove the temporary files that killed processes have left next to files of these names.

    No other process may write these files meanwhile, so the caller must hold their lock.
    """
    for path in folder.glob(".*"):
        # Version 0.1 had no ending.
        found = re.fullmatch(rf"\.(.+)\.{_DRAWN}(?:{re.escape(_PART)})?", path.name)
        if found is not None and found[1] in names:
            path.unlink(missing_ok=True)


def check_name(name: object, what: str, error: type[InputError]) -> str:
    """Check a name that becomes a part of the names of files, such as that of a target or of a space.

    Args:
        name: Name to check.
        what: What it names, for the message.
        error: Class of the error to raise.

    Raises:
        InputError: The name is not a text, or it could lead out of a folder. The error is of class `error`.
    """
    good = isinstance(name, str) and name.strip() and len(name) <= LONGEST_NAME and name.isprintable()
    if not good or str(name).startswith(".") or any(separator in str(name) for separator in _SEPARATORS):
        raise error(
            f"{what} must be a name of at most {LONGEST_NAME} printable characters without / and \\ that does not "
            f"begin with a dot, got {shown(name)}"
        )
    return str(name)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    return write_atomically(path, write)


def write_json(path: str | os.PathLike[str], content: Any) -> Path:
    """Write a JSON file that this package can read again.

    Raises:
        WriteError: The file cannot be written, or a number is not finite: readers refuse NaN and Infinity.
        UnwritablePathError: Nothing can be written to this path.
    """
    _check_finite(path, content)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    if "\ufeff" in text:  # readers refuse it outside the beginning of a file
        text = json.dumps(content, indent=2, allow_nan=False)
    return write_text(path, text + "\n")


def write_yaml(path: str | os.PathLike[str], content: Any) -> Path:
    """Write a YAML file that this package can read again; see `write_json`."""
    _check_finite(path, content)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    if any(mark in text for mark in "\x85\u2028\u2029\ufeff"):
        # PyYAML writes these characters unescaped, but then reads them as line breaks or drops them. So escape them.
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=False, width=120)
    return write_text(path, text)


def _check_finite(path: str | os.PathLike[str], content: Any) -> None:
    waiting: list[tuple[Any, str]] = [(content, "")]
    while waiting:
        value, where = waiting.pop()
        if isinstance(value, float) and not math.isfinite(value):
            raise WriteError(
                f"cannot write {os.fspath(path)}: {clipped(where) or 'it'} is {value}, not a finite number"
            )
        if isinstance(value, Mapping):
            waiting += [(part, f"{where}.{key}".lstrip(".")) for key, part in value.items()]
        elif isinstance(value, (list, tuple)):
            waiting += [(part, f"{where}[{number}]") for number, part in enumerate(value)]


def write_csv(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Path:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Format rows of a text table, the heading first, as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
