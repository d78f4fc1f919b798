"""Helpers of several tests: made-up latency tables, and a separate home folder in which NNI runs real experiments."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import resource
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from benchmarks import constants
from nni_proxyless.latency import Calibration, Device, LatencyTable, OperatorCost
from nni_proxyless.network.space_spec import SpaceSpec
from tests.warm import WarmProcess, run_warm, start_trials_warm
from tests.warm_changes import MEASURE_ONCE

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENCE = REPOSITORY / "nni_proxyless" / "nni_bridge" / "patience.cjs"
BIN = Path(sys.executable).parent


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no larger files; the error is that of a full disk.

    Python would write truncated bytecode of modules that are imported meanwhile, so it writes none.
    """
    before, writes = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes


# The largest network takes twice as long as the smallest one, so that a budget between them survives a busy machine.
SMALL_SPACE: dict[str, Any] = {
    "schema": "nni-proxyless/space@1",
    "name": "small",
    "input": {"channels": 1, "size": 16},
    "stem": {"width": 16, "stride": 1},
    "first_block": {"width": 16},
    "stages": [{"width": 24, "depth": 3, "stride": 2}],
    "candidates": {"kernels": [3, 5], "expansions": [3], "skip": True},
    "head": {"width": 32},
    "classes": 10,
}
TINY_SPACE: dict[str, Any] = {**constants.TINY_SPACE, "classes": 3}


def free_port() -> int:
    """Choose a port that is free, outside the range from which systems take ports of connections."""
    draw = random.SystemRandom()
    while True:
        port = draw.randrange(15_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port


def read_csv(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


class Workplace:
    """Separate home folder for NNI, with copies of some experiments, or with a copy of the files in `source`."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self.folder = folder
        if source is not None:
            shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
        for name in ("quickstart", "baselines", "retrain") if source is None else ():
            shutil.copytree(REPOSITORY / "experiments" / name, folder / "experiments" / name)
        self.experiment = folder / "experiments" / "quickstart"
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "NNI_PROXYLESS_CACHE": str(folder / "cache"),
            "NNI_CONFIG_DIR": str(folder / "nni-config"),
            MEASURE_ONCE: "1",
            # Plain nnictl too waits longer than 10 seconds for the tuner, since other tests run meanwhile.
            "NODE_OPTIONS": f'--require="{PATIENCE}"',
            "PATH": os.pathsep.join([str(BIN), os.environ["PATH"]]),
        }
        self.port = free_port()

    def start_trials_warm(self) -> None:
        """Let trials start warm (tests/warm.py)."""
        start_trials_warm(self.folder / f".{uuid.uuid4().hex}", self.environment)

    def change(self, file: str, changes: Mapping[str, Any]) -> None:
        path = self.experiment / file
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}))

    def shrink(self, *, measured: bool = False, **recipe: Any) -> None:
        """Let the experiment search a small space on one thread, so that starting processes takes most of the time.

        Args:
            measured: Whether the targets are measured. If not, they have a made-up table, which saves the processes
                that measure, and does not depend on the other tests that run meanwhile.
            **recipe: Further settings of the recipe.
        """
        space = SMALL_SPACE if measured else {**TINY_SPACE, "classes": 10}
        (self.experiment / "small.yml").write_text(yaml.safe_dump(space))
        small = {"space": "small.yml", "input_size": None, "threads": 1, "finalists": 4, "bn_batches": 2}
        small |= {"batch_size": 64}
        if not measured:
            table_of(SpaceSpec.from_dict(space)).save(self.experiment / "small_table.yml")
            small["targets"] = {name: {"table": "small_table.yml"} for name in ("cpu_torch", "cpu_onnxruntime")}
        self.change("recipe.yml", {**small, "budget_fraction": 0.9, "accept_tables": True, **recipe})

    def command(self, *words: str, timeout: float = 900) -> subprocess.CompletedProcess[str]:
        """Run a program with this home folder; `nni-proxyless` and `nnictl` start warm (tests/warm.py)."""
        if words[0] in ("nni-proxyless", "nnictl"):
            return run_warm(words, self.folder, self.environment, timeout)
        return subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            capture_output=True, text=True, check=False, cwd=self.folder, env=self.environment, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def start(self, *words: str) -> WarmProcess:
        """Start the package's own command with this home folder, without waiting for its end."""
        return WarmProcess(words, self.folder, self.environment)

    def api(self, path: str) -> Any:
        return json.loads(self.api_text(path))

    def api_text(self, path: str) -> str:
        return requests.get(f"http://localhost:{self.port}/api/v1/nni/{path}", timeout=20).text

    def state(self) -> str:
        """Return the trials as the manager sees them, its log and the processes, for the message of a failed test."""
        found = []
        with contextlib.suppress(requests.RequestException):
            found += [self.api_text("check-status"), self.api_text("trial-jobs")]
        for file in sorted((self.folder / "nni-experiments").glob("*/log/*.log")):
            found += [str(file), *file.read_text(errors="replace").splitlines()[-25:]]
        for file in sorted((self.folder / "nni-experiments").glob("**/trial.stderr")):
            found += [str(file), *file.read_text(errors="replace").splitlines()[-15:]]
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(process.cmdline())[:200])
        return "\n".join(["", *found])

    def metrics(self, trial: str) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """Return a trial's intermediate results, in order of their numbers without gaps, and its final results."""
        rows = self.api(f"metric-data/{trial}")
        periodical = sorted((r for r in rows if r["type"] == "PERIODICAL"), key=lambda r: r["sequence"])
        assert [r["sequence"] for r in periodical] == list(range(len(periodical)))
        final = [r for r in rows if r["type"] == "FINAL"]
        return tuple([json.loads(json.loads(r["data"])) for r in part] for part in (periodical, final))  # type: ignore[return-value]

    def processes(self) -> list[psutil.Process]:
        """Return all running processes with this home folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("HOME") == str(self.folder):
                    found.append(process)
            except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found


def wait_until(condition: Any, seconds: float = 60, progress: Any = None, state: Any = None) -> Any:
    """Wait until a condition holds, and return its value.

    Args:
        condition: Function that returns a true value if the condition holds. If it raises an exception, the condition
            does not hold yet.
        seconds: Timeout in seconds.
        progress: Function whose value shows progress. The timeout restarts when the value changes, so a slow process
            may take any time, but a hanging one may not.
        state: Function whose value is part of the error, so that a failure on another machine can be understood.

    Raises:
        AssertionError: The condition did not hold within the timeout.
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
        time.sleep(0.25)
    raise AssertionError(f"did not come true within {seconds} s ({last}){state() if state else ''}")


def table_of(spec: SpaceSpec) -> LatencyTable:
    costs = {operator: 0.01 * number for number, operator in enumerate(spec.distinct_operators(), start=1)}
    return made_up_table(costs, Calibration(2.0, 0.5, 8, 0.01), spec.name)


def made_up_table(costs_ms: Mapping[Any, float], calibration: Calibration, space: str) -> LatencyTable:
    """Make a latency table of a device that does not exist."""
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
