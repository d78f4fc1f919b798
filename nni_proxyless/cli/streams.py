"""Standard output and error output of a command, and its log.

The streams may be closed, full, a pipe whose reader has ended, or plain ASCII.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO, cast

_log = logging.getLogger("nni_proxyless")
# Characters that act on a terminal. They may come from a name in somebody's file.
_CONTROLS = {number: "?" for number in (*range(32), *range(127, 160)) if chr(number) not in "\n\t\r"}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")  # NNI's log has them, also in files; they can hide text
CLOSED_PIPE = 141  # as a shell tells of a program that SIGPIPE has ended


class OutputError(OSError):
    """The standard output cannot be written to: the reader of the pipe has ended, or the disk is full."""


def cleaned(text: str) -> str:
    """Return a text without colours, and with `?` in place of characters that act on a terminal."""
    return _COLOURS.sub("", text).translate(_CONTROLS)


class _Output:
    """The standard output, whose errors can be told from those of files.

    Args:
        stream: The standard output.
        before: Function that is called before the first text is written.
    """

    def __init__(self, stream: TextIO, before: Callable[[], None]) -> None:
        self._stream = stream
        self._before: Callable[[], None] | None = before

    def write(self, text: str) -> int:
        return self.write_styled(cleaned(text))

    def write_styled(self, text: str) -> int:
        """Write a text whose codes come from `cli/terminal.py`, which has removed all others."""
        if self._before is not None and text.strip():
            before, self._before = self._before, None
            before()
        with _named_errors():
            return self._stream.write(text)

    def flush(self) -> None:
        with _named_errors():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
    except OSError as reason:
        raise OutputError(reason.errno, reason.strerror) from reason


@contextlib.contextmanager
def guarded_streams(before: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Context manager in which anything can be printed, and after which nothing is left to be printed.

    Characters that the output cannot show, or that would act on a terminal, become `?`. Colours are removed. What
    is printed to a closed stream is lost. Without this, the next file that is opened would take the place of the
    closed stream, and get what libraries print.

    Args:
        before: Function that is called before the first text is written to the standard output.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the smallest free number
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    output = sys.stdout
    errors = output.errors if isinstance(output, io.TextIOWrapper) else None
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="replace")
    sys.stdout = cast(TextIO, _Output(output, before))
    try:
        yield
    finally:
        flush_output()
        sys.stdout = output
        if isinstance(output, io.TextIOWrapper) and errors is not None:
            output.reconfigure(errors=errors)


def flush_output() -> None:
    """Flush the standard output. If that fails, the rest of it is lost."""
    try:
        sys.stdout.flush()
    except OSError:
        # Otherwise Python tries again when it ends, and then ends with exit code 120.
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


def say(text: str) -> None:
    """Write to the standard error output, if it can be written to."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
