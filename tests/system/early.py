"""Runs command lines in a process in which neither torch nor NNI can be imported; `test_bad_input.py` starts it.

Each line of the input is a JSON list of the words, the working folder and the environment. Each line of the output is a
JSON list of the exit code and what was written to the standard error output.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

LATE = ("torch", "nni", "pytorch_lightning")


class _Refused:
    """Finder of modules that finds none of those that take seconds to import."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> None:
        if name in LATE:
            raise AssertionError(f"{name} was imported")


class EarlyProcess:
    """The process, as its parent sees it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, words: Sequence[str], folder: str, environment: dict[str, str]) -> tuple[object, str]:
        """Run a command line, and return its exit code and its standard error output."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([words, folder, environment]) + "\n")
        self._process.stdin.flush()
        code, told = json.loads(self._process.stdout.readline())
        return code, told

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def main() -> None:
    sys.meta_path.insert(0, _Refused())  # type: ignore[arg-type]
    from nni_proxyless.cli import entry

    before = dict(os.environ)
    for line in sys.stdin:
        words, folder, environment = json.loads(line)
        os.environ.clear()
        os.environ.update({**before, **environment})
        os.chdir(folder)
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                entry.main(words)
            except SystemExit as reason:
                code = reason.code
        print(json.dumps([code, err.getvalue()]), flush=True)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    main()
