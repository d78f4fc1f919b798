"""Stops all processes of a session, also those with a process group of their own, as `timeout` gives its program.

This file is also a program, which `watched_program` starts by its path: it uses the standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Collection


def session_processes(session: int) -> list[int]:
    """List the processes of a session, including those that have ended but are not waited for."""
    found = []
    for process in _all_processes():
        with contextlib.suppress(OSError):  # it has ended, or it belongs to somebody else
            if os.getsid(process) == session:
                found.append(process)
    return found


def stop_session(session: int, spared: Collection[int] = ()) -> None:
    """Kill all processes of a session, and those that they start meanwhile. Nobody else's process is in a session.

    Args:
        session: Number of the session, which is that of the process that began it.
        spared: Processes to leave alone.
    """
    seen = set(spared)
    while found := [process for process in session_processes(session) if process not in seen]:
        for process in found:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
        seen.update(found)


def _all_processes() -> list[int]:
    if os.path.isdir("/proc/self"):
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    listed = subprocess.run(["ps", "-A", "-o", "pid="], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in listed.split() if word.isdecimal()]


if __name__ == "__main__":
    stop_session(int(sys.argv[1]), (os.getpid(),))
