"""What a command shows while it runs: the progress of long tasks, and messages held until its input is accepted.

Progress is a bar with the time left on a terminal, and plain lines otherwise. A command that refuses its input prints
one line only. So the messages that it logs before wait until `work_begins`.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from .terminals import is_terminal

EVERY_S = 10.0  # shortest time between two plain lines about a measurement
EPOCH_EVERY_S = 30.0  # the same about the steps of an epoch
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
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
            self.show(record)
        else:
            self._held.append(record)

    def show(self, record: logging.LogRecord) -> None:
        """Print a message."""
        super().emit(record)

    def print_held(self) -> None:
        """Print the messages so far, and all later ones at once."""
        held, self._held = self._held or [], None
        for record in held:
            self.show(record)

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
def quiet_progress(quiet: bool = True) -> Iterator[None]:
    """Context manager in which no progress is shown if `quiet` is true.

    Args:
        quiet: Whether progress is hidden. With `False`, nothing changes.
    """
    before = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(before)


def shows_bars() -> bool:
    """Whether progress is shown as a bar: on a terminal, unless it is to be quiet."""
    return not _quiet.get() and is_terminal(sys.stderr)


def new_bar(title: str, total: int | None, unit: str = "it", *, leave: bool = False) -> Any:
    """Create a bar on the standard error output.

    Args:
        title: Text before the bar.
        total: Number of steps; `None` if it is not known yet.
        unit: Name of a step, for the display.
        leave: Whether the bar stays when it is closed.
    """
    from tqdm import tqdm

    try:
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        columns = rows = 0
    # The terminals of some programs, such as recorders, have no size. There tqdm by itself would show nothing.
    size = {"ncols": columns or 80, "nrows": rows or 24}
    return tqdm(desc=title, total=total, unit=unit, leave=leave, file=sys.stderr, **size)


def write_above_bars(text: str) -> None:
    """Write a line to the standard error output, above the progress bars if there are any."""
    shown = sys.modules.get("tqdm")
    if shown is not None and getattr(shown.tqdm, "_instances", None):
        shown.tqdm.write(text, file=sys.stderr)
    else:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """Return a duration as people say it: `45 s`, `2 min 10 s`, `45 min`, `1 h 20 min`, `3 days 4 h`."""
    rounded = float(f"{max(seconds, 0.0):.2g}")
    if rounded < 1:
        return "less than 1 s"
    if rounded < 100:
        return f"{rounded:.0f} s"
    if round(seconds, -1) < 600:
        minutes, rest = divmod(round(seconds, -1), 60)
        return f"{minutes:.0f} min" + (f" {rest:.0f} s" if rest else "")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        hours, rest = divmod(minutes, 60)
        return f"{hours} h" + (f" {rest} min" if rest and hours < 10 else "")
    days, hours = divmod(round(minutes / 60), 24)
    return f"{days} days" + (f" {hours} h" if hours else "")


@contextmanager
def progress_bar(title: str, every_s: float = EVERY_S) -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of a task on standard error, and yield the function that updates it.

    The arguments of that function are a text, the number of steps done and the maximum number of steps. The text begins
    with the name of the steps, because a plain line has it behind the numbers: `measuring: 1 of 41 operators, round 2`.

    Args:
        title: Title before the bar or at the start of each line.
        every_s: Minimum time in seconds between two plain lines.
    """
    if _quiet.get():
        yield lambda text, done, total: None
    elif shows_bars():
        bars: list[Any] = []  # none before the first step: there may be nothing to do

        def show(text: str, done: int, total: int) -> None:
            if not bars:
                bars.append(new_bar(title, total))
                bars[0].set_postfix_str(text)
            bars[0].total = total
            bars[0].set_postfix_str(text, refresh=False)
            bars[0].update(done - bars[0].n)

        try:
            yield show
        finally:
            for bar in bars:
                bar.close()
    else:
        last = time.monotonic()

        def say(text: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= every_s:
                last = time.monotonic()
                write_above_bars(f"{title}: {done} of {total} {text}")

        yield say


class EpochProgress:
    """Progress within the epochs of a training: a bar for the present epoch, or a plain line every half minute.

    Args:
        epochs: Number of epochs of the whole training.
        clock: Function that returns the present time in seconds.
        every_s: Minimum time in seconds between two plain lines.
    """

    def __init__(
        self, epochs: int, clock: Callable[[], float] = time.monotonic, every_s: float = EPOCH_EVERY_S
    ) -> None:
        self._epochs = epochs
        self._clock = clock
        self._every_s = every_s
        self._quiet = _quiet.get()
        self._started = self._epoch_started = self._told = clock()
        self._epoch = self._steps = self._done = 0
        self._bar: Any = None

    def begin(self, epoch: int, steps: int) -> None:
        """Begin an epoch.

        Args:
            epoch: Number of the epoch, counted from 0.
            steps: Number of its steps.
        """
        self._epoch, self._steps = epoch, steps
        self._epoch_started = self._told = self._clock()
        if not self._quiet and is_terminal(sys.stderr):
            self.close()
            self._bar = new_bar(f"epoch {epoch + 1}/{self._epochs}", steps, "step")

    def step(self, done: int) -> None:
        """Count a step of the epoch.

        Args:
            done: Number of steps of the epoch that are done.
        """
        self._done += 1
        now = self._clock()
        if self._bar is not None:
            self._bar.set_postfix_str(f"{duration(self._left(done, now))} left in all", refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._quiet and now - self._told >= self._every_s and done < self._steps:
            self._told = now
            epoch = (now - self._epoch_started) / done * (self._steps - done)
            write_above_bars(
                f"epoch {self._epoch + 1}/{self._epochs}: step {done}/{self._steps}, {duration(epoch)} left in this "
                f"epoch, {duration(self._left(done, now))} in all"
            )

    def _left(self, done: int, now: float) -> float:
        """Estimate the seconds to the end, if all steps take as long as those of this process on average."""
        steps = (self._epochs - self._epoch) * self._steps - done
        return (now - self._started) / self._done * steps

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
