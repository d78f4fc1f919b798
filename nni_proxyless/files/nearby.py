"""What lies near a path that a user has mistyped, or below a folder that holds several results: for error messages."""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import clipped

_DEPTH = 3  # levels of folders that are searched
_MOST_ENTRIES = 2000  # of one folder
_MOST_NAMED = 6
_LIKENESS = 0.7


def nearest(path: str | os.PathLike[str]) -> Path | None:
    """Return the existing path that is most like a path that does not exist; `None` if none is like it.

    The first part that does not exist is replaced by the most similar name in its folder. The other parts follow as far
    as they exist.
    """
    parts = Path(path).parts
    found = Path()
    replaced = False
    for part in parts:
        if os.path.lexists(found / part):
            found /= part
            continue
        names = [entry.name for entry in _entries(found)]
        close = difflib.get_close_matches(part, names, n=1, cutoff=_LIKENESS)
        if not close:
            break
        found, replaced = found / close[0], True
    return found if replaced else None


def did_you_mean(path: str | os.PathLike[str]) -> str:
    """Return the end of a message about a path that does not exist; empty if nothing is like it."""
    near = nearest(path)
    return "" if near is None else f"; did you mean {clipped(str(near))}?"


def no_such_path(path: str | os.PathLike[str], otherwise: str) -> str:
    """Return the message that there is neither a file nor a folder at a path.

    Args:
        path: The path.
        otherwise: What to do if nothing is like it.
    """
    return f"there is no file or folder {clipped(os.fspath(path))}{did_you_mean(path) or f'; {otherwise}'}"


def folders_with(folder: Path, name: str) -> list[Path]:
    """Return the folders below a folder that have a file of some name, the nearest first."""
    found: list[Path] = []
    level = [folder]
    for _ in range(_DEPTH):
        level = [Path(entry.path) for one in level for entry in _entries(one) if entry.is_dir()]
        level.sort()
        found += [one for one in level if (one / name).is_file()]
    return found


def try_folders_with(folder: Path, name: str, otherwise: str) -> str:
    """Return the end of a message about a folder that lacks a file: the folders below it that have the file.

    Args:
        folder: Folder that lacks the file.
        name: Name of the file.
        otherwise: What to do if no folder below has it.
    """
    found = folders_with(folder, name)
    if not found:
        return otherwise
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    named = ", ".join(clipped(str(one)) for one in found[:_MOST_NAMED])
    return f"give {'one of ' if len(found) > 1 else ''}{named}{more}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Return the visible entries of a folder; none if it cannot be read."""
    try:
        with os.scandir(folder) as listed:
            yield from [one for one in itertools.islice(listed, _MOST_ENTRIES) if not one.name.startswith(".")]
    except (OSError, ValueError):
        return
