"""The process that measures: it reads a job from stdin and writes progress and result to stdout, as lines of JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, RunError
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .backends.by_name import make_backend
from .measure import Ready, measure_file, measure_networks, measure_uncalibrated
from .protocol import Protocol
from .sampling import Progress


def _main() -> None:
    def say(message: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def step(text: str, done: int, total: int) -> None:
        say({"progress": [text, done, total]})

    def note(text: str) -> None:
        say({"note": text})

    def ready() -> None:
        say({"ready": True})
        if not sys.stdin.readline():
            sys.exit("the parent process has ended")

    torch.set_num_threads(1)  # several processes prepare in parallel; the backend sets its own number of threads
    try:
        say({"result": _run_job(json.loads(sys.stdin.readline()), step, ready, note)})
    except InputError as reason:
        say({"input_error": str(reason)})
    except RunError as reason:
        say({"run_error": str(reason)})


def _run_job(job: Mapping[str, Any], step: Progress, ready: Ready, note: Callable[[str], None]) -> Any:
    backend = make_backend(**job["backend"])
    backend.note = note
    if "architectures" in job:
        architectures = [Architecture.from_dict(content) for content in job["architectures"]]
        samples = measure_networks(architectures, backend, progress=step, ready=ready)
        return [(s.raw, s.slowdown, s.reference) for s in samples]
    if "file" in job:
        space = SpaceSpec.from_dict(job["space"])
        taken = measure_file(Path(job["file"]), space, backend, progress=step, ready=ready)
        return [(taken.raw, taken.slowdown, taken.reference)]
    spec = SpaceSpec.from_dict(job["space"])
    settings: dict[str, Any] = {
        key: Protocol(**value) if isinstance(value, dict) else value for key, value in job["settings"].items()
    }
    if settings.get("journal_path"):
        settings["journal_path"] = Path(settings["journal_path"])
    labels = [layer.label for layer in spec.layers]
    architectures = [
        Architecture.of_space(spec, dict(zip(labels, names.split(), strict=True))) for names in settings.pop("networks")
    ]
    table, medians = measure_uncalibrated(spec, backend, architectures, progress=step, ready=ready, **settings)
    return table.to_dict(), medians


if __name__ == "__main__":
    _main()
    os._exit(0)  # all output is flushed, and torch's shutdown would take about a second of the next measurement
