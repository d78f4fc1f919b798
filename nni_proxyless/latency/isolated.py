"""Measuring in a process of its own.

A process that has trained, or loaded half of the machine-learning world, is a poor place to measure in: its
allocator and thread pools made the same network 5 to 8 % slower than a fresh process did. Tables and networks that
are to be compared are therefore measured alike, each in a process that does nothing else.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..architecture import Architecture
from ..errors import InputError, RunError
from ..space_spec import SpaceSpec
from .backend import Backend
from .backends import make_backend
from .measure import measure_networks, measure_table
from .sampling import Progress, Protocol, Samples
from .table import LatencyTable


def measure_isolated(architecture: Architecture, backend: Backend, processes: int = 3) -> float:
    """Latency of an architecture in milliseconds: the median over fresh processes of the median in each.

    Now and then a process has an unlucky start (where its memory lies, say) and is several per cent slower for
    all of its life; one such process does not move the median of three.

    Args:
        architecture: Of a space that its file describes; built anew in each process.
        backend: What runs it.
        processes: How many processes, one after the other.

    Raises:
        RunError: A process failed; the message holds its last line.
    """
    runs = [measure_networks_isolated([architecture], backend)[0] for _ in range(processes)]
    return statistics.median(run.median for run in runs)


def measure_networks_isolated(
    architectures: Sequence[Architecture], backend: Backend, *, progress: Progress | None = None
) -> list[Samples]:
    """`measure_networks` in a fresh process: networks of one space in one interleaved run.

    Raises:
        RunError: The process failed; the message holds its last line.
    """
    job = {"architectures": [replace(a, measured_latency_ms=None).to_dict() for a in architectures]}
    return [Samples(tuple(raw), tuple(slowdown)) for raw, slowdown in _in_fresh_process(job, backend, progress)]


def measure_table_isolated(
    spec: SpaceSpec, backend: Backend, *, progress: Progress | None = None, **settings: Any
) -> LatencyTable:
    """`measure_table` in a fresh process.

    Args:
        spec: The space.
        backend: What runs the operators.
        progress: Called with a text, steps done and steps at most.
        **settings: `calibration_networks`, `seed`, `protocol`, `network_protocol`, `journal_path` of `measure_table`.

    Raises:
        InputError: As `measure_table`.
        RunError: The process failed; the message holds its last line.
    """
    settings = {key: _plain(value) for key, value in settings.items()}
    job = {"space": spec.to_dict(), "settings": settings}
    return LatencyTable.from_dict(_in_fresh_process(job, backend, progress))


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Protocol) else str(value) if isinstance(value, Path) else value


def _in_fresh_process(job: Mapping[str, Any], backend: Backend, progress: Progress | None) -> Any:
    text = json.dumps({**job, "backend": backend.settings})
    command = [sys.executable, "-W", "ignore", "-m", __name__]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(text)
            process.stdin.close()
            message: dict[str, Any] = {}
            for line in process.stdout:
                message = json.loads(line)
                if "progress" in message and progress:
                    progress(*message["progress"])
            process.wait()
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        lines = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
    if "input_error" in message:
        raise InputError(message["input_error"])
    if "result" not in message:
        raise RunError(f"measuring with {backend.name} failed: {message.get('run_error', lines[-1])}")
    return message["result"]


def _main() -> None:
    def say(message: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def step(text: str, done: int, total: int) -> None:
        say({"progress": [text, done, total]})

    try:
        say({"result": _do(json.load(sys.stdin), step)})
    except InputError as reason:
        say({"input_error": str(reason)})
    except RunError as reason:
        say({"run_error": str(reason)})


def _do(job: Mapping[str, Any], step: Progress) -> Any:
    backend = make_backend(**job["backend"])
    if "architectures" in job:
        architectures = [Architecture.from_dict(content) for content in job["architectures"]]
        return [(s.raw, s.slowdown) for s in measure_networks(architectures, backend, progress=step)]
    settings: dict[str, Any] = {
        key: Protocol(**value) if isinstance(value, dict) else value for key, value in job["settings"].items()
    }
    if settings.get("journal_path"):
        settings["journal_path"] = Path(settings["journal_path"])
    return measure_table(SpaceSpec.from_dict(job["space"]), backend, progress=step, **settings).to_dict()


if __name__ == "__main__":
    _main()
