"""Waiting for the answer of a manager that is starting, or that a busy machine slows down.

NNI's launcher gives up on a manager that is starting after about four seconds, and on a single answer after 20 seconds.
"""

from __future__ import annotations

import time

import psutil

LONGEST_S = 60.0
ANSWER_S = 120
_EVERY_S = 0.25


def wait_longer() -> None:
    """Let NNI's launcher wait for its manager for as long as that is starting, up to a minute.

    Later requests wait for two minutes. A manager that has ended refuses a request at once.
    """
    from nni.experiment import launcher, rest

    rest.timeout = ANSWER_S
    launcher._check_rest_server = _until_it_answers


def _until_it_answers(port: int, retry: int = 0, url_prefix: str | None = None) -> None:
    """Take the place of a function of NNI's launcher, and raise the same errors."""
    from nni.experiment import rest

    end = time.monotonic() + LONGEST_S
    while True:
        try:
            rest.get(port, "/check-status", url_prefix)
        except Exception:
            if time.monotonic() > end or not _manager_runs():
                raise
            time.sleep(_EVERY_S)
        else:
            return


def _manager_runs() -> bool:
    """Whether a manager is among the processes that this one has started, and has not ended."""
    for process in psutil.Process().children(recursive=True):
        try:
            if process.status() != psutil.STATUS_ZOMBIE and any(w.endswith("main.js") for w in process.cmdline()):
                return True
        except psutil.Error:
            continue
    return False
