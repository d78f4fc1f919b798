"""The place where bad inputs are tried: a working folder, a home, a cache and a folder for temporary files."""

from __future__ import annotations

import contextlib
import io
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.figure  # noqa: F401  imported first, because these packages write to the home folder
import nni.nas.evaluator.pytorch  # noqa: F401
import onnxruntime  # noqa: F401
import pytest
import pytorch_lightning  # noqa: F401
from nni.experiment.config.utils import internal
from nni.runtime.config import get_config_file

from nni_proxyless.cli.entry import main
from nni_proxyless.nni_bridge.registration import register

from .case import Case, put
from .folder import make_good_files, snapshot

MOST_SECONDS = 10
MOST_CHARACTERS = 500


class _TooSlow(BaseException):
    """Raised in a case that takes too long; the command line does not catch it."""


class Place:
    """A working folder with good files, which is as before after each case.

    Args:
        base: Folder of the working folder `work` and of the other folders that a command could write to.
    """

    def __init__(self, base: Path) -> None:
        self.base = base
        self.work = base / "work"
        for name in ("work", "home", "cache", "nni", "tmp"):
            (base / name).mkdir(parents=True)
        platform.uname().processor  # noqa: B018  starts a program, once
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NNI_CONFIG_DIR", str(base / "nni"))
            register()  # so that the registry holds the tuner, as after every earlier `run`
            get_config_file("training_services.json")  # NNI makes this file when it reads it
        self._good = make_good_files(self.work)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of a command that writes only below the base."""
        folders = {"HOME": "home", "NNI_PROXYLESS_CACHE": "cache", "NNI_CONFIG_DIR": "nni", "TMPDIR": "tmp"}
        return {name: str(self.base / folder) for name, folder in folders.items()}

    def problems(self, case: Case) -> list[str]:
        """Run a case, and return what is wrong with its end; empty if it ends as documented."""
        for name, content in case.files.items():
            put(self.work / name, content)
        before = snapshot(self.base)
        code, out, err = self._run(case)
        after = snapshot(self.base)
        self.tidy(case, changed=after != before)
        found = []
        lines = err.strip().splitlines()
        line = lines[-1] if lines else ""
        if code != 2:
            found.append(f"exit code {code}")
        if len(lines) != 1:
            found.append(f"{len(lines)} lines on stderr")
        if len(line) >= MOST_CHARACTERS:
            found.append(f"a line of {len(line)} characters")
        if "Traceback" in err:
            found.append("a traceback")
        if out.strip():
            found.append(f"on stdout: {out[:200]}")
        if case.received not in line:
            found.append(f"does not name what was received: {case.received!r}")
        if case.says not in line:
            found.append(f"does not say: {case.says!r}")
        names = sorted({*before, *after})
        changed = [name for name in names if before.get(name) != after.get(name)]
        if changed:
            found.append(f"written or changed: {', '.join(changed)}")
        return [*found, f"it said: {err[-1500:]}"] if found else []

    def _run(self, case: Case) -> tuple[object, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        environment = {**self.environment, **case.environment}
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            patch.chdir(self.work)
            patch.setattr(tempfile, "tempdir", None)
            patch.setattr(subprocess.Popen, "__init__", _refuse)
            patch.setattr(os, "execve", _refuse)
            patch.setattr(internal, "_current_base_path", None)  # NNI leaves it behind when it refuses a config
            for name in ("XDG_CACHE_HOME", "NNI_TRIAL_JOB_ID", "LOCAL_RANK", "NNI_OUTPUT_DIR", "NNI_PLATFORM"):
                patch.delenv(name, raising=False)
            for name, value in environment.items():
                patch.setenv(name, value)
            try:
                with _at_most(MOST_SECONDS):
                    main(case.words)
            except SystemExit as reason:
                code = reason.code
            except _TooSlow:
                code = f"none after {MOST_SECONDS} s"
        return code, out.getvalue(), err.getvalue()

    def tidy(self, case: Case, changed: bool = False) -> None:
        """Restore the good files that a case has replaced, and remove all others that it has made."""
        for name in case.files:
            path = self.work / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.is_symlink() or path.exists():
                path.unlink()
            top = path.parent
            while top != self.work and not any(top.iterdir()):
                top.rmdir()
                top = top.parent
            if name in self._good:
                put(path, self._good[name])
        if changed:  # the case fails; the next one begins with a new folder
            shutil.rmtree(self.base)
            Place.__init__(self, self.base)


def _refuse(*words: Any, **_: Any) -> None:
    raise AssertionError(f"a program was started: {words}")


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
