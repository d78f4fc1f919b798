"""One exception hierarchy for the whole package.

An `InputError` is an error that the user can fix: a wrong key, file, device or value. The command line prints its
message on one line and exits with code 2. A `RunError` is a run that failed although its input was valid. Its exit
code is 1. A message states what was received, what is allowed and what to do.
"""

from __future__ import annotations

import difflib
import errno
import os
import reprlib
from collections.abc import Collection, Iterable
from typing import ClassVar

MOST_SHOWN = 200  # characters of one value in a message
_MOST_NAMES = 100  # names that a message lists


class ProxylessError(Exception):
    """Base class of all errors that nni-proxyless raises deliberately.

    Messages are cut if they are longer than `most_characters`, which only a list of many names can reach.
    """

    most_characters: ClassVar[int] = 2_000

    def __init__(self, message: object = "") -> None:
        super().__init__(clipped(str(message), self.most_characters))


class InputError(ProxylessError, ValueError):
    """Invalid input: a value, file or combination that the user has to change."""


class RecipeError(InputError):
    """A recipe with an unknown key, a wrong type or a value out of range."""


class SpaceError(InputError):
    """A search space that does not exist, or whose description is inconsistent."""


class UnsupportedSpaceError(SpaceError, TypeError):
    """A model space with choices of a kind that the strategy does not search. NNI raises a `TypeError` there."""


class LatencyTableError(InputError):
    """A latency table that cannot be read or contains impossible values."""


class MissingOperatorError(LatencyTableError):
    """A latency table that lacks operators of the space it is used for. The message lists all of them."""

    most_characters = 100_000


class ArchitectureError(InputError):
    """An architecture file that cannot be read or belongs to another space."""


class DataError(InputError):
    """A data folder that is missing, empty or too small to be split, or an image that cannot be read."""

    def __init__(self, message: object = "") -> None:
        text = str(message)
        if text.startswith("Caught "):  # PyTorch's data loader raises a worker's error anew, with its traceback in it
            text = text.rpartition("DataError: ")[2].strip()
        super().__init__(text)


class MissingDependencyError(InputError):
    """An optional package that the chosen feature needs, but that is not installed or cannot be loaded."""

    @classmethod
    def of(cls, reason: ImportError, what: str, package: str, extra: str) -> MissingDependencyError:
        """Create the error for an import that failed.

        Args:
            reason: Error of the import.
            what: What needs the package, for the message.
            package: Name of the package on PyPI.
            extra: Name of the extra of this package that installs it.
        """
        if isinstance(reason, ModuleNotFoundError):
            return cls(f"{what} needs the package '{package}': pip install 'nni-proxyless[{extra}]'")
        text, fix = not_loaded(str(reason), package)
        return cls(f"{what} needs the package '{package}', which is installed but {text}; {fix}")


def not_loaded(reason: str, package: str) -> tuple[str, str]:
    """Say why an installed package cannot be loaded, and what to do.

    Args:
        reason: Text of the import's error.
        package: Name of the package on PyPI.
    """
    lines = [" ".join(line.split()) for line in reason.splitlines() if line.strip()]
    text = f"cannot be loaded: {clipped(lines[-1], 300) if lines else 'no reason given'}"
    if "executable stack" in reason:  # since version 2.41, glibc loads no such library (its NEWS of 2025-01)
        return text, "set the environment variable GLIBC_TUNABLES=glibc.rtld.execstack=2, which allows it"
    return text, f"pip install --force-reinstall {package}"


class DamagedFileError(InputError):
    """A weights file or checkpoint that is truncated, damaged or of another kind. Nothing in it was executed."""


class InUseError(InputError):
    """A folder of results, or a file, that another process uses."""


class RunError(ProxylessError, RuntimeError):
    """A run that failed although its input was valid."""


class WriteError(RunError, OSError):
    """A file or folder that cannot be written: the disk is full, or it is not writable."""


class UnwritablePathError(InputError, OSError):
    """A path to which nothing can be written, such as a folder where a file should be."""


# Errors of a full or broken disk, or of a machine without memory. The command was right, and may work later.
OF_THE_MACHINE = (
    errno.EAGAIN, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC,
    errno.EPIPE,
)  # fmt: skip


def os_error_of(error: BaseException) -> ProxylessError | None:
    """Say in one line what the operating system refused, without claiming that it was reading or writing.

    Returns:
        A `RunError` if the machine is the reason, an `InputError` if another path or other permissions help, and `None`
        if the error does not come from the operating system.
    """
    if isinstance(error, RuntimeError) and getattr(error.__context__, "errno", None) == errno.ELOOP:
        error = error.__context__ or error  # `Path.resolve` raises this for a loop of symbolic links
    if not isinstance(error, OSError) or error.errno is None:
        return None
    given = (error.filename, error.filename2)
    where = " and ".join(clipped(os.fsdecode(name)) for name in given if isinstance(name, (str, bytes, os.PathLike)))
    text = error.strerror or os.strerror(error.errno)
    kind = RunError if error.errno in OF_THE_MACHINE else InputError
    return kind(f"cannot use {where}: {text}" if where else f"the operating system refused a call: {text}")


def shown(value: object) -> str:
    """Return a value as Python writes it, in at most about 200 characters, for a message about that value.

    Long texts, long lists and deeply nested mappings are cut, without formatting them in full first.
    """
    try:
        return clipped(_REPR.repr(value), MOST_SHOWN)
    except ValueError:  # Python refuses to write integers of more than 4,300 digits
        return f"a value of type {type(value).__name__} that is too large to be shown"


def clipped(text: str, most: int = MOST_SHOWN) -> str:
    """Cut the middle of a text that is longer than `most` characters, because messages end with what to do."""
    if len(text) <= most:
        return text
    tail = most // 4
    return f"{text[: most - tail - 1]}…{text[-tail:]}"


def misfit(missing: Collection[object], unknown: Collection[object]) -> str:
    """Say which names of a set are missing, and which ones do not belong to it; empty if the names match."""
    parts = [f"{what} {shown(list(names))}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
    return " and ".join(parts)


def unknown_name(kind: str, received: object, allowed: Iterable[str]) -> str:
    """Return the error message for an unknown name: the received name, the closest valid one and all valid ones."""
    names = sorted(allowed)
    name = clipped(received) if isinstance(received, str) else shown(received)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"unknown {kind} '{name}'{hint} (allowed: {', '.join(names[:_MOST_NAMES])}{more})"


def _bounded() -> reprlib.Repr:
    made = reprlib.Repr()
    made.maxlevel = 4
    made.maxdict = made.maxlist = made.maxtuple = made.maxset = made.maxfrozenset = 12
    made.maxstring = made.maxlong = made.maxother = MOST_SHOWN
    return made


_REPR = _bounded()
