"""A trial ends with its manager.

A manager that is killed leaves its trials running, and `nnictl resume` starts each of them again with the same folder:
two processes would write the same checkpoint. So a trial of the local service watches the manager it descends from.
What it loses is the epoch it is in.
"""

from __future__ import annotations

import logging
import os
import threading
import time

import psutil

_log = logging.getLogger(__name__)
EXIT_CODE = 75  # of sysexits.h: try again later


def end_with_the_manager(every_s: float = 1.0) -> bool:
    """Watch the manager from a thread; when it is gone, end this process at once.

    Args:
        every_s: How often to look, in seconds.

    Returns:
        Whether there is a manager to watch: none on another machine than the trial's.
    """
    manager = next((process for process in psutil.Process().parents() if _is_manager(process)), None)
    if manager is None:
        return False

    def watch() -> None:
        while _runs(manager):
            time.sleep(every_s)
        _log.error("NNI's manager (process %d) is gone; the trial ends and goes on when it is resumed", manager.pid)
        os._exit(EXIT_CODE)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:  # it went between two looks
        return False


def _is_manager(process: psutil.Process) -> bool:
    try:
        return "node" in process.name() and any("nni" in word for word in process.cmdline())
    except psutil.Error:
        return False
