"""Searches and retrainings that are killed at random moments end with the same bytes as those that are not.

`NNI_PROXYLESS_KILLS=20 pytest tests/search/test_kills.py` kills each of them twenty times instead of twice.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from nni_proxyless.files.claims import LOCK
from tests.helpers import read_csv
from tests.warm import WarmProcess, run_warm

KILLS = int(os.environ.get("NNI_PROXYLESS_KILLS", "2"))
MARK = "NNI_PROXYLESS_TEST_OF_KILLS"


def result(folder: Path) -> dict[str, Any]:
    """Return everything in a folder of results that the seed decides, the bytes of the files where possible."""
    found: dict[str, Any] = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in {".pt", ".yml"} or path.name in {"architecture.json", "probabilities.csv", "finalists.csv"}
    }
    found["history"] = [{**row, "seconds": ""} for row in read_csv(folder / "history.csv")]
    content = torch.load(folder / "checkpoint.ckpt", weights_only=True)
    found["checkpoint"] = {key: value.numpy().tobytes() for key, value in content["state_dict"].items()}
    return found


def marked(mark: str) -> list[int]:
    """Return the numbers of all processes that have the mark in their environment, or descend from one that has."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def judge(parts: Path, whole: Path) -> None:
    """Check that a run that was killed has the results of one that was not, and left nothing else."""
    assert result(parts) == result(whole)
    assert not [path for path in parts.rglob(".*") if path.is_file()]


def when_claimed(folder: Path, process: WarmProcess) -> float:
    """Wait until a process has claimed its folder, and return the time."""
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if json.loads((folder / LOCK).read_text())["process"] == process.pid:
                break
        time.sleep(0.02)
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["search", "retrain"])
def test_random_kills_change_nothing(kind: str, recipe_file: Path) -> None:
    folder = recipe_file.parent
    words = ["nni-proxyless", kind, str(recipe_file), "finalists=3", "finalist_epochs=1"]
    if kind == "retrain":
        space = folder / "tiny.yml"
        words = ["nni-proxyless", kind, "mobilenet_v2_0.5", f"space={space}", "data=digits", "threads=1", "epochs=6"]
    environment = {**os.environ, MARK: str(folder), "NNI_PROXYLESS_CACHE": str(folder / "cache")}
    whole, parts = folder / "whole", folder / "parts"
    process = WarmProcess([*words, "--output", str(whole)], folder, environment)
    began = when_claimed(whole, process)
    assert process.wait(600) == 0, process.stderr
    takes_s = time.monotonic() - began
    drawn = random.Random(kind)
    environment["NNI_PROXYLESS_CACHE"] = str(folder / "other cache")
    killed = 0
    while killed < KILLS:
        process = WarmProcess([*words, "--output", str(parts)], folder, environment)
        when_claimed(parts, process)
        time.sleep(drawn.uniform(0.0, takes_s))
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.send_signal(signal.SIGKILL)
        assert process.wait(600) in (0, -signal.SIGKILL), process.stderr
        killed += process.wait() != 0
        if process.wait() == 0:
            # It has ended before the kill. The next one starts over, and the kills so far have to be judged now.
            judge(parts, whole)
            shutil.rmtree(parts)
            shutil.rmtree(folder / "other cache", ignore_errors=True)
    done = run_warm([*words, "--output", str(parts)], folder, environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    judge(parts, whole)
    assert not [path for path in (folder / "other cache").rglob(".*") if path.is_file()]
    assert not marked(str(folder))
