"""SIGTERM and SIGHUP as exceptions, so that a command ends tidily, with the exit code that a shell gives the signal."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

# What a command says after its name if a signal ends it: Ctrl-C, or another one, whose name follows.
INTERRUPTED, ENDED_BY = "interrupted", "ended by "
_received: list[int] = []


class Stopped(KeyboardInterrupt):
    """SIGTERM, as from Slurm or docker, or SIGHUP, as from a closed terminal. Lightning treats it like Ctrl-C.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def leave_word(stop: KeyboardInterrupt, text: str) -> None:
    """Set what the message of an interrupted command says about the files that are kept and about how to continue."""
    stop.left_word = text  # type: ignore[attr-defined]


def left_word(stop: KeyboardInterrupt) -> str:
    """Return the text that `leave_word` has set; empty if there is none."""
    return str(getattr(stop, "left_word", ""))


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Context manager in which SIGTERM and SIGHUP raise `Stopped` in the main thread.

    Signals that are ignored, as SIGHUP under `nohup`, and signals for which the program has a handler of its own stay
    as they are. In other threads nothing changes, because only the main thread may set handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]
    before = list(_received)
    for number in numbers:
        signal.signal(number, _stop)
    try:
        yield
    except Stopped:
        raise
    except KeyboardInterrupt as reason:
        if len(_received) > len(before):  # Lightning drops the exception, and another one is raised later
            stop = Stopped(_received[-1])
            leave_word(stop, left_word(reason))
            raise stop from reason
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        _received[:] = before


@contextlib.contextmanager
def interruptions_raised() -> Iterator[None]:
    """Context manager in which an interruption of Lightning's trainer is raised as such.

    Newer versions of Lightning ignore further SIGINTs from then on, and end the process with exit code 1.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        yield
    except SystemExit as reason:
        if isinstance(reason.__context__, KeyboardInterrupt):
            raise reason.__context__ from None
        raise
    finally:
        if in_main_thread and before is not None:
            signal.signal(signal.SIGINT, before)


def _stop(number: int, _frame: object) -> None:
    _received.append(number)
    raise Stopped(number)
