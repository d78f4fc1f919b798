"""Measuring a network in a process of its own.

A process that has trained is a poor place to measure in: its allocator and thread pools made the same network up to
8 % slower than a fresh process did (see docs/latency.md).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ..architecture import Architecture
from ..errors import RunError
from .backends import Backend, make_backend
from .measure import Protocol, Samples, measure_network

_PROTOCOL = Protocol(sample_s=0.005, min_rounds=30, max_rounds=100, max_relative_spread=0.005)


def measure_isolated(architecture: Architecture, backend: Backend) -> Samples:
    """Latency of an architecture, built anew in a fresh process.

    Args:
        architecture: Of a space that its file describes.
        backend: What runs it.

    Raises:
        RunError: The process failed; its last line says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = replace(architecture, measured_latency_ms=None).save(Path(folder) / "architecture.json")
        command = [sys.executable, "-W", "ignore", "-m", __name__, str(path)]
        command += [backend.name, str(backend.threads), str(backend.batch)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise RunError(f"measuring with {backend.name} failed: {lines[-1]}")
    return Samples(tuple(json.loads(done.stdout.strip().splitlines()[-1])))


def _main(path: str, backend: str, threads: str, batch: str) -> None:
    architecture = Architecture.load(path)
    runner = make_backend(backend, int(threads), int(batch))
    shape = architecture.require_spec().input_shape
    samples = measure_network(architecture.build(), shape, runner, _PROTOCOL)
    sys.stdout.write(json.dumps(samples.milliseconds) + "\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
