"""Ends a helper process when the process that started it is gone, however that has ended."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_EVERY_S = 0.5


def end_with_parent(parent: int) -> None:
    """End this process as soon as its parent has ended.

    Linux sends SIGKILL when the thread that started this process ends. Elsewhere a thread looks for the parent.

    Args:
        parent: Process id of the parent. If it has ended already, so does this process.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
    if prctl is None or prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        threading.Thread(target=_watch, args=(parent,), name="end with parent", daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_EVERY_S)
    os._exit(1)
