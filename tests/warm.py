"""Processes that start with PyTorch and Lightning already imported, which saves the tests several seconds for each.

The processes are forked from a server that has only imported libraries. Everything else, this package and NNI included,
is imported in the new process, after it has received its environment and working directory.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "torchvision", "torchmetrics", "pytorch_lightning"])
# Environment variables of a warm process: it measures tables, networks and files in one process instead of several, and
# the trials of a manager that it starts are warm processes, too (tests/warm_trials.py).
MEASURE_ONCE = "NNI_PROXYLESS_TESTS_MEASURE_ONCE"
TRIALS = "NNI_PROXYLESS_TESTS_TRIALS"


class WarmProcess:
    """A running process, with the part of the interface of `subprocess.Popen` that the tests use.

    Args:
        words: `nni-proxyless` and its arguments, or `python`, `-c` and the code.
        folder: Working directory.
        environment: All environment variables of the process.
        streams: Files to which standard output and error are appended. Defaults to temporary files.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] = os.environ,
        streams: Sequence[Path] = (),
    ) -> None:
        self._streams = list(streams)
        if not streams:
            written = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, written, ignore_errors=True)
            self._streams = [Path(written) / name for name in ("stdout", "stderr")]
            for path in self._streams:
                path.touch()
        self._process = _SERVER.Process(
            target=_main, args=(list(words), str(folder), dict(environment), *map(str, self._streams))
        )
        self._process.start()

    def poll(self) -> int | None:
        """Return the exit code, or `None` while the process is running."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code.

        Raises:
            TimeoutError: The process took longer than `timeout` seconds. It has been killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
            raise TimeoutError(f"it took longer than {timeout} s: {self.stdout}{self.stderr}")
        return self._process.exitcode

    @property
    def sentinel(self) -> int:
        """File descriptor that becomes readable when the process ends."""
        return self._process.sentinel

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
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


def measure_once() -> None:
    """Let this process measure everything once. Repetitions take time, and tests/latency tests them."""
    from nni_proxyless.latency import isolated, validate

    for name in ("PROCESSES", "TABLE_PROCESSES", "MOST_TABLE_PROCESSES"):
        setattr(isolated, name, 1)
    for function in (
        isolated.measure_networks_isolated, isolated.measure_file_isolated, isolated.measure_table_isolated,
    ):  # fmt: skip
        assert function.__kwdefaults__ is not None
        counts = function.__kwdefaults__.keys() & {"processes", "most_processes"}
        function.__kwdefaults__.update(dict.fromkeys(counts, 1))
    validate.PROCESSES = 1


def _main(words: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, (path, flags) in enumerate(((os.devnull, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))):
        os.dup2(os.open(path, flags | os.O_APPEND), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # processes of a background job would ignore Ctrl-C
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and those of `nohup make test` a closed terminal
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if MEASURE_ONCE in environment:
        measure_once()
    if TRIALS in environment and words[:2] == ["nni-proxyless", "run"]:
        from nni_proxyless.nni_bridge import run

        run._put_commands_on_path = lambda: None  # PATH has the command of warm trials
    try:
        if words[0] == "nni-proxyless":
            from nni_proxyless.cli.entry import main

            sys.argv = list(words)
            sys.exit(main())
        sys.path.insert(0, "")
        exec(compile(words[2], "<string>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves these out
