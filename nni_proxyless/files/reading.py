"""The only place in which files from outside are read: bytes, text, YAML, JSON and CSV.

A file may come from a stranger, or be damaged. So it is checked here what kind of file it is, how large, and whether it
is text in UTF-8; `files/parsing.py` checks what it holds. All readers raise the `InputError` of their caller's kind,
and nothing else.

A byte order mark at the beginning is skipped, because editors on Windows write it. Elsewhere it is refused.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import stat
from pathlib import Path
from typing import IO, Any

from ..errors import InputError, clipped, shown
from .nearby import did_you_mean
from .parsing import Refused, checked_text, parse_json, parse_yaml

MOST_BYTES = 64 * 2**20  # of a text file
MOST_YAML_BYTES = 32 * 2**20  # a table fitted to a space of 1,000 choices has 20 MB
MOST_CSV_BYTES = 2**30  # a few million networks
_PART_BYTES = 2**20
_KINDS = {
    stat.S_ISFIFO: "it is a pipe, not a file",
    stat.S_ISCHR: "it is a device, not a file",
    stat.S_ISBLK: "it is a device, not a file",
    stat.S_ISSOCK: "it is a socket, not a file",
}


def user_path(path: str | os.PathLike[str], what: str, error: type[InputError]) -> Path:
    """Return the path of a file that a user has named, with `~` replaced by the home folder.

    Args:
        path: Path as the user wrote it.
        what: Kind of file in error messages, such as "recipe".
        error: Class of the error to raise.

    Raises:
        InputError: The path has a character NUL, or there is no such user. The error is of class `error`.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise error(f"cannot read {what} {shown(text)}: a path cannot have a character NUL")
    try:
        return Path(text).expanduser()
    except RuntimeError as reason:
        raise error(
            f"cannot read {what} {clipped(text)}: there is no such home folder; write the whole path"
        ) from reason


def read_bytes(path: str | os.PathLike[str], what: str, error: type[InputError], most: int = MOST_BYTES) -> bytes:
    """Read a regular file. Pipes and devices are refused, since they may never end.

    Args:
        path: Path of the file.
        what: Kind of file in error messages, such as "recipe".
        error: Class of the error to raise.
        most: Largest allowed size in bytes.

    Raises:
        InputError: The file is missing, is not a regular file, is too large or cannot be read. The error is of class
            `error`.
    """
    named = f"{what} {clipped(os.fspath(path))}"
    with open_regular(path, what, error) as file:
        try:
            content = file.read(most + 1) if os.fstat(file.fileno()).st_size <= most else None
        except OSError as reason:
            raise error(f"cannot read {named}: {reason.strerror}") from reason
    if content is None or len(content) > most:
        raise error(f"cannot read {named}: it has more than {most // 2**20} MiB, which is the limit")
    return content


def digest(path: str | os.PathLike[str], what: str, error: type[InputError]) -> str:
    """Hash a regular file of any size by SHA-256; see `read_bytes`."""
    found = hashlib.sha256()
    with open_regular(path, what, error) as file:
        try:
            while part := file.read(_PART_BYTES):
                found.update(part)
        except OSError as reason:
            raise error(f"cannot read {what} {clipped(os.fspath(path))}: {reason.strerror}") from reason
    return found.hexdigest()


def open_regular(path: str | os.PathLike[str], what: str, error: type[InputError]) -> IO[bytes]:
    """Open a regular file to be read. Pipes and devices are refused, since they may never end.

    Raises:
        InputError: The file is missing, is not a regular file or cannot be opened. The error is of class `error`.
    """
    named = f"{what} {clipped(os.fspath(path))}"
    # Without O_NONBLOCK, opening a pipe would wait for its other end.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        file = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    except (OSError, ValueError) as reason:  # a path with a character NUL is a ValueError
        near = did_you_mean(path) if isinstance(reason, FileNotFoundError) else ""
        raise error(f"cannot read {named}: {getattr(reason, 'strerror', None) or reason}{near}") from reason
    for check, text in _KINDS.items():
        if check(os.fstat(file.fileno()).st_mode):
            file.close()
            raise error(f"cannot read {named}: {text}")
    return file


def read_text(path: str | os.PathLike[str], what: str, error: type[InputError], most: int = MOST_BYTES) -> str:
    """Read a text file in UTF-8, without a byte order mark at its beginning; see `read_bytes`.

    Raises:
        InputError: The file cannot be read or is not text in UTF-8. The error is of class `error`.
    """
    content = read_bytes(path, what, error, most)
    try:
        return checked_text(content.decode("utf-8-sig"))
    except UnicodeDecodeError as reason:
        named = f"{what} {clipped(os.fspath(path))}"
        raise error(f"cannot read {named}: it is not text in UTF-8 (byte {reason.start + 1})") from reason
    except Refused as reason:
        raise error(f"cannot read {what} {clipped(os.fspath(path))}: it has {reason}") from reason


def read_document(path: str | os.PathLike[str], what: str, error: type[InputError]) -> Any:
    """Read a YAML file, or a JSON file if its name ends with `.json`; see `parse_yaml` and `parse_json`.

    Raises:
        InputError: The file cannot be read or cannot be parsed. The error is of class `error`.
    """
    named = f"{what} {clipped(os.fspath(path))}"
    if Path(path).suffix.lower() == ".json":
        return parse_json(read_text(path, what, error), named, error)
    return parse_yaml(read_text(path, what, error, MOST_YAML_BYTES), named, error)


def read_mapping(path: str | os.PathLike[str], what: str, error: type[InputError]) -> dict[str, Any]:
    """Read a YAML or JSON file that must contain a mapping.

    Args:
        path: Path of the file.
        what: Kind of file in error messages, such as "recipe".
        error: Class of the error to raise.

    Raises:
        InputError: The file is missing, cannot be parsed or does not contain a mapping. The error is of class `error`.
    """
    content = read_document(path, what, error)
    if not isinstance(content, dict):
        kinds = {list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
        found = kinds.get(type(content), "a number")
        raise error(f"{what} {clipped(os.fspath(path))} must be a mapping of keys to values, but holds {found}")
    return content


def read_rows(path: str | os.PathLike[str], what: str, error: type[InputError]) -> list[dict[str, str]]:
    """Read a CSV file with a header: one dictionary for each row, with the columns as keys.

    Raises:
        InputError: The file cannot be read, has no header, two equal columns, or a row of another length than the
            header. The error is of class `error`.
    """
    text, named = read_text(path, what, error), f"{what} {clipped(os.fspath(path))}"
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except csv.Error as reason:
        raise error(f"{named} cannot be parsed: {reason}") from reason
    if not header or len(set(header)) < len(header):
        raise error(f"{named} must begin with a line of different column names, got {shown(header)}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise error(f"{named}: row {number} has {len(row)} cells, but there are {len(header)} columns")
    return [dict(zip(header, row, strict=True)) for row in rows]
