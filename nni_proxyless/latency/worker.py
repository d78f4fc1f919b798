"""The process that measures: it reads a job from stdin and writes progress and result to stdout, as lines of JSON."""

from __future__ import annotations

import os
import signal
import sys

from .parent_process import end_with_parent


def _main(parent: int) -> None:
    end_with_parent(parent)  # before the imports below, which take seconds
    # Ctrl-C reaches all processes of a terminal. The parent process says what happens then, and ends this one.
    # It is not ignored altogether, because the programs of the command backend would ignore it too.
    signal.signal(signal.SIGINT, lambda *_: None)
    # Libraries may print to the standard output, which has to stay a sequence of messages.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    from .worker_job import answer

    answer(sys.stdin, messages)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
    os._exit(0)  # all output is flushed, and torch's shutdown would take about a second of the next measurement
