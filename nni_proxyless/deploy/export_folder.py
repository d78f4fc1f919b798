"""The folder of an export. It is locked, and written completely or not at all. Errors name this folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import OF_THE_MACHINE, InputError, WriteError
from ..files.claims import claimed
from ..files.work_folder import WorkFolder

UNTOUCHED = "; what was there before is untouched"


@contextlib.contextmanager
def made(out: Path) -> Iterator[None]:
    """Make a folder that no other process uses until the end, and remove it again if nothing was written.

    Raises:
        InputError: The folder cannot be made or written to, or is in use.
        RunError: The disk is full.
    """
    whole = out.absolute()
    missing = [folder for folder in (whole, *whole.parents) if not os.path.exists(folder)]
    try:
        with contextlib.ExitStack() as stack:
            with named_errors(out, "" if missing else UNTOUCHED):
                stack.enter_context(claimed(out, "choose another folder with --out"))
            yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()


def work_folder(out: Path) -> WorkFolder:
    with named_errors(out, UNTOUCHED):
        return WorkFolder(out, ".export-")


@contextlib.contextmanager
def named_errors(out: Path, consequence: str = "") -> Iterator[None]:
    """Raise errors of the file system as errors in writing into the folder, not of the temporary files in it."""
    try:
        yield
    except OSError as reason:
        told = reason if reason.errno is not None else reason.__cause__  # the package's own errors have a cause
        if not isinstance(told, OSError) or told.errno is None:
            raise
        text = f"cannot write into {out}: {told.strerror}{consequence}"
        raise (
            WriteError(text) if told.errno in OF_THE_MACHINE else InputError(f"{text}; choose another --out")
        ) from reason
