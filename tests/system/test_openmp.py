"""The waiting time of OpenMP's threads: short in commands, the user's own in programs that are measured."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nni_proxyless.latency.fresh_process import FreshProcess
from nni_proxyless.latency.watched_program import run_watched
from nni_proxyless.openmp import environment_to_measure

# The command `schema` of a process of its own, which then prints what GNU OpenMP will read.
_COMMAND = """
import os, sys
from nni_proxyless.cli.entry import main
try:
    main(["schema", "recipe"])
except SystemExit:
    print("torch" in sys.modules, os.environ.get("GOMP_SPINCOUNT"), file=sys.stderr)
"""


def _environment_of_a_command(**given: str) -> str:
    bare = {name: value for name, value in os.environ.items() if "SPINCOUNT" not in name and "OMP_WAIT" not in name}
    run = subprocess.run(
        [sys.executable, "-c", _COMMAND], capture_output=True, text=True, check=True, env={**bare, **given}
    )
    return run.stderr.split("\n")[-2]


def test_commands_wait_briefly_unless_the_user_has_chosen() -> None:
    assert _environment_of_a_command() == "False 1000"
    assert _environment_of_a_command(GOMP_SPINCOUNT="5") == "False 5"
    assert _environment_of_a_command(OMP_WAIT_POLICY="active") == "False None"


def test_what_is_measured_waits_as_the_user_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {"GOMP_SPINCOUNT": "1000", "NNI_PROXYLESS_SPINCOUNT": "1000", "HOME": "/"}
    assert environment_to_measure(ours) == {"HOME": "/"}
    assert environment_to_measure({**ours, "GOMP_SPINCOUNT": "7"}) == {"HOME": "/", "GOMP_SPINCOUNT": "7"}
    assert environment_to_measure({"GOMP_SPINCOUNT": "1000"}) == {"GOMP_SPINCOUNT": "1000"}  # the user's own choice
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    assert run_watched(["sh", "-c", "echo ${GOMP_SPINCOUNT:-none}"], timeout_s=60.0).output == "none\n"
    started: dict[str, str] = {}

    def start(*_: object, env: dict[str, str], **__: object) -> subprocess.Popen[str]:
        started.update(env)
        raise OSError("not started")

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(OSError, match="not started"):
        FreshProcess({})
    assert "TMPDIR" in started
    assert "GOMP_SPINCOUNT" not in started
