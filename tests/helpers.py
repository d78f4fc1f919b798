"""What several tests need: made-up latency tables, and a home of its own for NNI to run real experiments in."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from nni_proxyless.latency import Calibration, Device, LatencyTable, OperatorCost
from nni_proxyless.network.space_spec import SpaceSpec

REPOSITORY = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def heed_ctrl_c() -> None:
    """For `preexec_fn`: whoever runs the tests in the background has Ctrl-C ignored, by all that they start too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


class Workplace:
    """A home of its own for NNI, with a copy of the quickstart in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("quickstart", "baselines", "retrain"):
            shutil.copytree(REPOSITORY / "experiments" / name, folder / "experiments" / name)
        self.experiment = folder / "experiments" / "quickstart"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "NNI_PROXYLESS_CACHE": str(folder / "cache"),
            "NNI_CONFIG_DIR": str(folder / "nni-config"),
            "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        }
        self.port = free_port()

    def change(self, file: str, changes: Mapping[str, Any]) -> None:
        path = self.experiment / file
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    def command(self, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            capture_output=True, text=True, check=False, cwd=self.folder, env=self.environment, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def api(self, path: str) -> Any:
        return json.loads(self.api_text(path))

    def api_text(self, path: str) -> str:
        return requests.get(f"http://localhost:{self.port}/api/v1/nni/{path}", timeout=20).text

    def metrics(self, trial: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """Intermediate results in the order of their numbers, which have no gaps, and final ones."""
        rows = self.api(f"metric-data/{trial}")
        periodical = sorted((r for r in rows if r["type"] == "PERIODICAL"), key=lambda r: r["sequence"])
        assert [r["sequence"] for r in periodical] == list(range(len(periodical)))
        final = [r for r in rows if r["type"] == "FINAL"]
        return tuple([json.loads(json.loads(r["data"])) for r in part] for part in (periodical, final))  # type: ignore[return-value]

    def processes(self) -> list[psutil.Process]:
        """Everything that still runs with this home."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.folder):
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found


def wait_until(condition: Any, seconds: float = 60, progress: Any = None) -> Any:
    """Wait until a condition holds and return its value; an exception counts as not yet.

    With `progress`, a function of no arguments, the seconds count from when its value last changed: what is slow may
    take as long as it needs, what stands still may not.
    """
    end, last = time.monotonic() + seconds, None
    seen = progress() if progress else None
    while time.monotonic() < end:
        if progress and (now := progress()) != seen:
            seen, end = now, time.monotonic() + seconds
        try:
            value = condition()
        except Exception as error:
            last = error
        else:
            if value:
                return value
            last = None
        time.sleep(1)
    raise AssertionError(f"did not come true within {seconds} s ({last})")


def table_of(spec: SpaceSpec) -> LatencyTable:
    costs = {operator: 0.01 * number for number, operator in enumerate(spec.distinct_operators(), start=1)}
    return made_up_table(costs, Calibration(2.0, 0.5, 8, 0.01), spec.name)


def made_up_table(costs_ms: Mapping[Any, float], calibration: Calibration, space: str) -> LatencyTable:
    """A table of a device that does not exist."""
    return LatencyTable(
        device=Device("made up", "none", 1),
        backend="torch",
        backend_version="0",
        dtype="float32",
        batch=1,
        threads=1,
        date="2026-01-01T00:00:00+00:00",
        operators={entry: OperatorCost(cost, 0.0, 1) for entry, cost in costs_ms.items()},
        calibration=calibration,
        space=space,
    )
