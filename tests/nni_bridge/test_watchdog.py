"""A trial ends with NNI's manager, and with the shell in which NNI started it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from nni_proxyless.nni_bridge.watchdog import EXIT_CODE
from tests.warm import WarmProcess

TRIAL = """
import os, sys
sys.path.insert(0, {package!r})
from nni_proxyless.nni_bridge import watchdog
import psutil
from types import SimpleNamespace
chain = [psutil.Process(number) for number in {chain!r}]
manager = chain[-1]
watchdog._is_manager = lambda process: process.pid == manager.pid
watchdog.psutil = SimpleNamespace(
    Process=lambda: SimpleNamespace(parents=lambda: chain), Error=psutil.Error, STATUS_ZOMBIE=psutil.STATUS_ZOMBIE
)
assert watchdog.end_with_the_manager(0.1)
print("watches", flush=True)
import time
time.sleep(600)
"""


@pytest.mark.parametrize("killed", [0, 1])
def test_a_trial_ends_with_its_shell_and_with_the_manager(killed: int, tmp_path: Path) -> None:
    """Two programs stand in for the shell and the manager. Either one's end ends the trial."""
    sleep = shutil.which("sleep") or "/bin/sleep"
    chain = [subprocess.Popen([sleep, "600"]) for _ in range(2)]
    package = str(Path(__file__).resolve().parents[2])
    code = TRIAL.format(package=package, chain=[process.pid for process in chain])
    trial = WarmProcess(["python", "-c", code], tmp_path)
    try:
        while "watches" not in trial.stdout:
            assert trial.poll() is None, trial.stderr
            time.sleep(0.05)
        chain[killed].kill()
        chain[killed].wait()
        assert trial.wait(60) == EXIT_CODE
        told = ("the shell of this trial is gone", "NNI's manager (process ")[killed]
        assert told in trial.stderr
    finally:
        for process in chain:
            process.kill()
            process.wait()
