"""Waiting for a manager that is starting or busy, and ending one that does not answer.

NNI's launcher gives up after about four seconds, its client after one answer that takes longer than 20 seconds, and its
`kill_command` needs the program `kill`, which minimal systems lack.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil
import requests

LONGEST_S = 60.0
ANSWER_S = 120
LATEST_S = 300.0
_EVERY_S = 0.25
_ENDING_S = 60.0


def wait_longer() -> None:
    """Let NNI's launcher wait for its manager for as long as that is starting, up to a minute.

    NNI's client then waits as well for a manager that runs and is slow to answer: two minutes for one answer, and five
    for an answer to a question, which can be asked again. A manager that has ended refuses a request at once.
    """
    from nni.experiment import experiment, launcher, rest

    rest.timeout = ANSWER_S
    launcher._check_rest_server = _until_it_answers
    experiment.kill_command = end_process
    if not isinstance(rest.request, _Patient):
        rest.request = _Patient(rest.request)


class _Patient:
    """Takes the place of the function with which NNI's client asks its manager. Only questions are repeated."""

    def __init__(self, ask: Callable[..., Any]) -> None:
        self.ask = ask

    def __call__(self, method: str, *arguments: Any, **settings: Any) -> Any:
        end = time.monotonic() + LATEST_S
        while True:
            try:
                return self.ask(method, *arguments, **settings)
            except requests.Timeout:
                if method != "get" or time.monotonic() > end or not _manager_runs():
                    raise


def end_process(pid: int, timeout: float = _ENDING_S) -> None:
    """End a process with SIGTERM or, after a timeout in seconds, with SIGKILL."""
    try:
        process = psutil.Process(pid)
        process.terminate()
        try:
            process.wait(timeout)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout)
    except psutil.NoSuchProcess:
        return


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
