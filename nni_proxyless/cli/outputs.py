"""Files and folders that a command is asked to write. They are checked before anything else is done."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ..errors import InputError, clipped
from ..files import results_folder
from ..files.probe import why_not_writable

_OUTPUTS = ("out", "samples", "suggestions", "front")
_INPUTS = (
    "among", "architecture", "architectures", "basis", "checkpoint", "counts", "file", "first", "measurements",
    "recipe", "second", "space", "table", "weights",
)  # fmt: skip


def output_file(text: str) -> Path:
    """Type of an argument: a file that can be written; it and the folders above it need not exist yet."""
    path = _path(text, "file")
    if path.is_dir():
        raise _refused(text, "file", "it is a folder")
    if path.exists() and not path.is_file():
        raise _refused(text, "file", "it is a device or a pipe")
    _probe(path.parent, text, "file")
    return path


def output_folder(text: str) -> Path:
    """Type of an argument: a folder that can be written into; it and the folders above it need not exist yet."""
    path = _path(text, "folder")
    _probe(path, text, "folder")
    return path


def check_folder(folder: Path, hint: str) -> None:
    """Check a folder for results that no argument has named.

    Args:
        folder: Folder that the command chose.
        hint: What to do if it cannot be used, for the message.

    Raises:
        InputError: Nothing can be written into the folder.
    """
    try:
        output_folder(str(folder))
    except argparse.ArgumentTypeError as reason:
        raise InputError(f"the place of the results {reason}; {hint}") from reason


def check_apart(options: argparse.Namespace) -> None:
    """Check that a command is not asked to write a file that it reads, or to write two things into one file.

    Raises:
        InputError: An output is also an input, or two outputs are the same file.
    """
    inputs = list(_named(options, _INPUTS))
    outputs = [(name, path) for name, path in _named(options, _OUTPUTS) if not path.is_dir()]
    for number, (name, path) in enumerate(outputs):
        other = next((other for other, source in inputs if path.exists() and _reads(source, path)), None)
        if other is not None:
            raise InputError(f"--{name} {clipped(str(path))} would replace what the command reads; give another file")
        twin = next((twin for twin, second in outputs[:number] if second.absolute() == path.absolute()), None)
        if twin is not None:
            raise InputError(f"--{twin} and --{name} are both {clipped(str(path))}; give two files")


def _named(options: argparse.Namespace, names: tuple[str, ...]) -> Iterator[tuple[str, Path]]:
    for name in names:
        value = getattr(options, name, None)
        for path in value if isinstance(value, list) else [value]:
            if isinstance(path, (str, Path)) and "\0" not in str(path):
                yield name, Path(path)
                if name == "table" and "=" in str(path):  # NAME=FILE
                    yield name, Path(str(path).partition("=")[2])


def _reads(source: Path, path: Path) -> bool:
    """Whether a command that reads a file, or a folder of results, reads a given file."""
    return _same(source, path) or (path.name in results_folder.COLLECTED and _same(source, path.parent))


def _same(first: Path, second: Path) -> bool:
    try:
        return first.samefile(second)
    except OSError:
        return False


def _path(text: str, what: str) -> Path:
    if not text.strip() or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be the path of a {what}, got {text!r:.200}")
    path = Path(text)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as reason:
        raise _refused(text, what, reason.strerror or str(reason)) from reason
    return path


def _probe(folder: Path, text: str, what: str) -> None:
    why = why_not_writable(folder)
    if why is not None:
        raise _refused(text, what, why)


def _refused(text: str, what: str, why: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"must be the path of a {what}, but {clipped(text)} cannot be one: {why}")
