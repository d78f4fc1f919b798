"""Ends a trial when NNI's manager is gone.

If the manager is killed, its trials keep running, and `nnictl resume` starts each of them again in the same folder. Two
processes would then write the same checkpoint. To prevent this, a trial of the local service watches the manager, which
is one of its ancestor processes, and ends itself. Only the epoch in progress is lost. The trial also watches the
processes between itself and the manager: if NNI kills the shell in which a trial runs, the trial ends too.
"""

from __future__ import annotations

import logging
import os
import threading
import time

import psutil

from ..progress import work_begins

_log = logging.getLogger(__name__)
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: a temporary failure, try again later


def end_with_the_manager(every_s: float = 1.0) -> bool:
    """Watch the manager from a thread, and end this process as soon as it or a process between them is gone.

    Args:
        every_s: Interval between two checks, in seconds.

    Returns:
        Whether there is a manager to watch. There is none if the manager runs on another machine than the trial.
    """
    ancestors = psutil.Process().parents()
    number = next((number for number, process in enumerate(ancestors) if _is_manager(process)), None)
    if number is None:
        return False
    manager, between = ancestors[number], ancestors[:number]

    def watch() -> None:
        while _runs(manager) and all(map(_runs, between)):
            time.sleep(every_s)
        gone = "the shell of this trial" if _runs(manager) else f"NNI's manager (process {manager.pid})"
        _log.error("%s is gone; the trial ends and continues when it is resumed", gone)
        work_begins()  # otherwise the message would wait for the input to be accepted
        os._exit(EXIT_CODE)

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    return True


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:  # the process ended between the two calls
        return False


def _is_manager(process: psutil.Process) -> bool:
    try:
        return "node" in process.name() and any("nni" in word for word in process.cmdline())
    except psutil.Error:
        return False
