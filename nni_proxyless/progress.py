"""What a command shows while it runs: the progress of long tasks, and messages held until its input is accepted.

A command that refuses its input prints one line only. So the messages that it logs before wait until `work_begins`.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

_LOG = "nni_proxyless"


if TYPE_CHECKING:
    _Handler = logging.StreamHandler[TextIO]
else:  # Python 3.10 has no parameters there
    _Handler = logging.StreamHandler


class HeldMessages(_Handler):
    """Log handler that keeps the messages until they are released or dropped, and afterwards prints each at once.

    Args:
        stream: Stream to print to.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._held: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        if self._held is None:
            super().emit(record)
        else:
            self._held.append(record)

    def print_held(self) -> None:
        """Print the messages so far, and all later ones at once."""
        held, self._held = self._held or [], None
        for record in held:
            super().emit(record)

    def forget(self) -> None:
        """Forget the messages that have not been printed."""
        self._held = []


def work_begins() -> None:
    """Say that the input has been accepted and the work begins, so that messages no longer have to wait."""
    for handler in logging.getLogger(_LOG).handlers:
        if isinstance(handler, HeldMessages):
            handler.print_held()


def forget_messages() -> None:
    """Say that the input has been refused, so that the messages that still wait are never printed."""
    for handler in logging.getLogger(_LOG).handlers:
        if isinstance(handler, HeldMessages):
            handler.forget()


@contextmanager
def progress_bar(title: str, every_s: float = 10.0) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of a task on standard error, and yield the function that updates it.

    The arguments of that function are a text, the number of steps done and the maximum number of steps.

    Args:
        title: Title before the bar or at the start of each line.
        every_s: Minimum time in seconds between two plain lines.
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(desc=title, leave=False) as bar:

            def show(text: str, done: int, total: int) -> None:
                bar.total = total
                bar.set_postfix_str(text)
                bar.update(done - bar.n)

            yield show
    else:
        last = time.monotonic()

        def say(text: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= every_s:
                last = time.monotonic()
                sys.stderr.write(f"{title}: {text} {done}/{total}\n")
                sys.stderr.flush()

        yield say
