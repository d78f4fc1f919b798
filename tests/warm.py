"""Processes that start with PyTorch, Lightning and other libraries already imported, which saves seconds for each.

The processes are forked from a server that has only imported libraries (tests/warm_server.py). Everything else, this
package and NNI included, is imported in the new process, after it has received its environment and working directory.
All workers of a test run share one server. It starts with the first process, and ends with the test run.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.warm_changes import PROGRAM, PYTHON, TRIALS

_SERVER = "NNI_PROXYLESS_TESTS_SERVER"
# Its name, in Linux' abstract namespace. Workers of pytest-xdist inherit it from the process that starts them.
os.environ.setdefault(_SERVER, f"nni-proxyless-tests-{os.getpid()}-{uuid.uuid4().hex}")


class WarmProcess:
    """A running process, with the part of the interface of `subprocess.Popen` that the tests use.

    Args:
        words: `nni-proxyless` or `nnictl` and its arguments; or `python` and `-c` with code, `-m` with a module or the
            path of a script, and arguments.
        folder: Working directory.
        environment: All environment variables of the process.
    """

    def __init__(self, words: Sequence[str], folder: Path, environment: Mapping[str, str] = os.environ) -> None:
        written = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, written, ignore_errors=True)
        self._streams = [written / name for name in ("stdout", "stderr")]
        asked = {"words": list(words), "folder": str(folder), "environment": dict(environment)}
        line = json.dumps(asked).encode() + b"\n"
        self._connection = connected()
        weakref.finalize(self, self._connection.close)
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(os.devnull, "rb"))]
            files += [stack.enter_context(path.open("ab")) for path in self._streams]  # type: ignore[misc]
            sent = socket.send_fds(self._connection, [line], [file.fileno() for file in files])
            self._connection.sendall(line[sent:])
            self.pid = int(self._line())
        self._code: int | None = None

    def _line(self) -> str:
        read = b""
        while not read.endswith(b"\n"):
            byte = self._connection.recv(1)
            if not byte:
                raise RuntimeError("the server of warm processes has ended (tests/warm_server.py)")
            read += byte
        return read.decode()

    def poll(self) -> int | None:
        """Return the exit code, or `None` while the process is running."""
        return self._exit_code(0)

    def _exit_code(self, timeout: float | None) -> int | None:
        if self._code is None and select.select([self._connection], [], [], timeout)[0]:
            self._code = int(self._line())
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            TimeoutError: The process took longer than `timeout` seconds. It has been killed.
        """
        code = self._exit_code(timeout)
        if code is None:
            self.send_signal(signal.SIGKILL)
            self._exit_code(None)
            raise TimeoutError(f"it took longer than {timeout} s: {self.stdout}{self.stderr}")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is not None:
            raise ProcessLookupError(f"process {self.pid} has ended")
        os.kill(self.pid, number)

    @property
    def stdout(self) -> str:
        """What the process has written to standard output so far."""
        return self._streams[0].read_text()

    @property
    def stderr(self) -> str:
        """What the process has written to standard error so far."""
        return self._streams[1].read_text()


def run_warm(
    words: Sequence[str], folder: Path, environment: Mapping[str, str] = os.environ, timeout: float = 900
) -> subprocess.CompletedProcess[str]:
    """Run a process to its end, as `subprocess.run` does with `capture_output`; see `WarmProcess`."""
    process = WarmProcess(words, folder, environment)
    code = process.wait(timeout)
    return subprocess.CompletedProcess(list(words), code, process.stdout, process.stderr)


def connected() -> socket.socket:
    """Return a connection to the server, which is started if there is none.

    Raises:
        RuntimeError: The server does not start.
    """
    name = os.environ[_SERVER]
    started = False
    for _ in range(600):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(f"\0{name}")
            return connection
        except ConnectionRefusedError:
            connection.close()
        if not started:
            _start(name)
            started = True
        time.sleep(0.05)
    raise RuntimeError("the server of warm processes does not start (tests/warm_server.py)")


def _start(name: str) -> None:
    """Start the server, which ends with the process that has chosen its name. Of several servers, one goes on."""
    owner = name.split("-")[-2]
    path = Path(__file__).with_name("warm_server.py")
    server = subprocess.Popen(
        [sys.executable, str(path), name, owner], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, text=True, start_new_session=True, cwd="/",
    )  # fmt: skip
    assert server.stdin is not None
    with contextlib.suppress(BrokenPipeError), server.stdin:
        json.dump([os.path.abspath(path) for path in sys.path], server.stdin)
    server.returncode = 0  # nobody waits for it, and that is no leak


def start_trials_warm(folder: Path, environment: dict[str, str]) -> None:
    """Change an environment so that the trials and the tuner of NNI's manager start warm.

    A trial imports PyTorch, Lightning and NNI, which takes longer than a search in a small space. Here the manager
    starts a small program in its place, which asks for a warm process (tests/warm_program.py). The trial watches the
    manager from the place of this program.

    Args:
        folder: Folder for the programs, which is created.
        environment: Environment variables of the command that starts the manager. `PATH` and one more are changed.
    """
    folder.mkdir()
    command = shlex.quote(str(Path(sys.executable).parent / "nni-proxyless"))
    write_program(folder / "nni-proxyless", f'[ "$1" = trial ] || exec {command} "$@"')
    write_program(folder / "python")
    environment[TRIALS] = str(folder)
    environment["PATH"] = os.pathsep.join([str(folder), environment["PATH"]])


def warm_python(folder: Path) -> dict[str, str]:
    """Return an environment in which a warm process starts other Python processes warm, such as ranks.

    Args:
        folder: Folder for a program, `python`, that runs Python code in warm processes.
    """
    write_program(folder / "python")
    connected().close()  # a server is running
    return {**os.environ, PYTHON: str(folder / "python")}


def write_program(path: Path, before: str = "") -> None:
    """Write a program that starts in a warm process.

    Args:
        path: File of the program, whose name is `nni-proxyless` or `python`.
        before: Command of the shell that runs first.
    """
    path.write_text(f'#!/bin/sh\n{before}\nexec {shlex.join(PROGRAM)} {path.name} "$@"\n')
    path.chmod(0o755)
