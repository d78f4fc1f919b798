"""A fresh process that measures, seen from the process that started it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, RunError
from ..files.work_folder import WorkFolder
from ..openmp import environment_to_measure
from .sampling import Progress
from .tools.reading import shown

_log = logging.getLogger(__name__)
PYTHON = (sys.executable, "-W", "ignore")
_WORKER = f"{__package__}.worker"
_END_OF_ERRORS = 10_000  # characters


class FreshProcess:
    """A process for one job: it prepares the workloads, waits for its turn, measures and returns the result.

    It ends with this process, even if this one is killed (`parent_process`).
    """

    def __init__(self, job: Mapping[str, Any]) -> None:
        # What a killed process leaves behind, such as the models of the command backend, is removed by `close`.
        self._folder = WorkFolder()
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  see `close`
        command = [*PYTHON, "-m", _WORKER, str(os.getpid())]
        environment = environment_to_measure(os.environ) | {"TMPDIR": str(self._folder.path)}
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
                encoding="utf-8", errors="replace", env=environment,
            )  # fmt: skip
        except BaseException:
            self._errors.close()
            self._folder.close()
            raise
        self._message: dict[str, Any] = {}
        self._say(json.dumps(job))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process reports the reason on stderr
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self, until: str, progress: Progress | None = None) -> None:
        """Read messages until one has the key `until`, one reports an error, or the output ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                self._message = json.loads(line)
            except ValueError:  # the process was killed while it wrote
                continue
            if "progress" in self._message and progress:
                progress(*self._message["progress"])
            if "note" in self._message:
                _log.info("%s", self._message["note"])
            if self._message.keys() & {until, "input_error", "run_error"}:
                return

    def wait_until_ready(self) -> None:
        """Wait until the workloads are prepared. If that fails, `measure` raises the error."""
        self._read("ready")

    def measure(self, backend: str, progress: Progress | None) -> Any:
        """Let the process measure, and wait for its result.

        Raises:
            InputError: The process reported invalid input.
            RunError: The process failed. The message includes the last line of its output on stderr.
        """
        if "ready" in self._message:
            self._say("go")
            self._read("result", progress)
        if "input_error" in self._message:
            raise InputError(self._message["input_error"])
        self._process.wait()  # its shutdown also uses the CPU and must not overlap with the next measurement
        if "result" in self._message:
            return self._message["result"]
        raise RunError(f"measuring with {backend} failed: {self._message.get('run_error') or self._reason()}")

    def _reason(self) -> str:
        """Say why the process has ended: by a signal, with the last line on stderr, or with its exit code."""
        code = self._process.returncode
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else str(-code)
            killed = " (by hand, or because memory ran out)" if -code == getattr(signal, "SIGKILL", 9) else ""
            return f"the measuring process was ended by the signal {name}{killed}"
        self._errors.seek(0)
        lines = self._errors.read()[-_END_OF_ERRORS:].strip().splitlines()
        return shown(lines[-1]) if lines else f"exit code {code}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]
        self._folder.close()
