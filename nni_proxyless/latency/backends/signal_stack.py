"""Restores the stack on which signal handlers run.

`sigaltstack(2)` gives a thread an alternate stack for signals. OpenVINO sets one when it compiles a network, and frees
its memory afterwards. The next signal with a handler, such as Ctrl-C, would then write to freed memory.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> tuple[int, int, int] | None:
    """Return the address, flags and size in bytes of this thread's alternate stack; `None` where that is unknown."""
    if sys.platform != "linux":
        return None
    found = _Stack()
    if ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)):
        return None
    return found.address or 0, found.flags, found.size


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Context manager after which this thread has the alternate stack that it had before. Does nothing but on Linux."""
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(_Stack(*before)), None)
