"""Processes that start with PyTorch and Lightning already imported, which saves the tests several seconds for each.

The processes are forked from a server that has only imported libraries. Everything else, this package and NNI included,
is imported in the new process, after it has received its environment and working directory.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["torch", "torchvision", "torchmetrics", "pytorch_lightning"])


def run_warm(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command of this package or some Python code, as `subprocess.run` does with `capture_output`.

    Args:
        words: `nni-proxyless` and its arguments, or `python`, `-c` and the code.
        folder: Working directory.
        environment: All environment variables of the process.
        timeout: Longest duration in seconds.

    Raises:
        subprocess.TimeoutExpired: The process took longer. It has been stopped.
    """
    with tempfile.TemporaryDirectory() as written:
        streams = [Path(written) / name for name in ("stdout", "stderr")]
        process = _SERVER.Process(target=_main, args=(list(words), str(folder), dict(environment), *map(str, streams)))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(words), timeout)
        return subprocess.CompletedProcess(list(words), process.exitcode, *(path.read_text() for path in streams))


def _main(words: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    for number, (path, flags) in enumerate(
        ((os.devnull, os.O_RDONLY), (out, os.O_WRONLY | os.O_CREAT), (err, os.O_WRONLY | os.O_CREAT))
    ):
        os.dup2(os.open(path, flags | os.O_APPEND, 0o600), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    try:
        if words[0] == "nni-proxyless":
            from nni_proxyless.cli.entry import main

            sys.argv = list(words)
            sys.exit(main())
        sys.path.insert(0, "")
        exec(compile(words[2], "<string>", "exec"), {"__name__": "__main__"})
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves these out
