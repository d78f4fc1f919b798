"""Progress display for long tasks: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
