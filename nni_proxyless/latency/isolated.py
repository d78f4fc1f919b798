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
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from ..architecture import Architecture
from ..errors import RunError
from ..space_spec import SpaceSpec
from .backends import Backend, make_backend
from .measure import Progress, Protocol, Samples, measure_network, measure_table
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
    job = {"architecture": replace(architecture, measured_latency_ms=None).to_dict()}
    runs = [Samples(tuple(_in_fresh_process(job, backend, None))) for _ in range(processes)]
    return statistics.median(run.median_ms for run in runs)


def measure_table_isolated(
    spec: SpaceSpec, backend: Backend, *, progress: Progress | None = None, **settings: Any
) -> LatencyTable:
    """`measure_table` in a fresh process.

    Args:
        spec: The space.
        backend: What runs the operators.
        progress: Called with a text, steps done and steps at most.
        **settings: `calibration_networks`, `seed`, `protocol`, `network_protocol` of `measure_table`.

    Raises:
        RunError: The process failed; the message holds its last line.
    """
    settings = {key: asdict(value) if isinstance(value, Protocol) else value for key, value in settings.items()}
    job = {"space": spec.to_dict(), "settings": settings}
    return LatencyTable.from_dict(_in_fresh_process(job, backend, progress))


def _in_fresh_process(job: Mapping[str, Any], backend: Backend, progress: Progress | None) -> Any:
    where = {"name": backend.name, "threads": backend.threads, "batch": backend.batch}
    text = json.dumps({**job, "backend": where})
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
            result = None
            for line in process.stdout:
                message = json.loads(line)
                if "progress" not in message:
                    result = message["result"]
                elif progress:
                    progress(*message["progress"])
            process.wait()
        except BaseException:
            process.kill()
            raise
        errors.seek(0)
        lines = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
    if process.returncode != 0 or result is None:
        raise RunError(f"measuring with {backend.name} failed: {lines[-1]}")
    return result


def _main() -> None:
    def say(message: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    job = json.load(sys.stdin)
    backend = make_backend(**job["backend"])
    result: Any
    if "architecture" in job:
        architecture = Architecture.from_dict(job["architecture"])
        shape = architecture.require_spec().input_shape
        result = measure_network(architecture.build(), shape, backend).milliseconds
    else:
        settings: dict[str, Any] = {
            key: Protocol(**value) if isinstance(value, dict) else value for key, value in job["settings"].items()
        }
        table = measure_table(
            SpaceSpec.from_dict(job["space"]),
            backend,
            progress=lambda *step: say({"progress": step}),
            **settings,
        )
        result = table.to_dict()
    say({"result": result})


if __name__ == "__main__":
    _main()
