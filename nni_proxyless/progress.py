"""Progress of long work: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(title: str, every_s: float = 10.0) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function that is called with a text, steps done and steps at most.

    Args:
        title: Stands before the bar or the lines.
        every_s: Seconds between two plain lines.
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
