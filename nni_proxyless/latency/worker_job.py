"""What the process that measures does: it answers one job with its progress and result, as lines of JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import torch

from ..errors import InputError, RunError
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .backends.by_name import make_backend
from .measure import Ready, measure_file, measure_networks, measure_uncalibrated
from .protocol import Protocol
from .sampling import Progress


def answer(questions: TextIO, messages: TextIO) -> None:
    """Answer the job in the first line, once a second line says that it is this process's turn.

    Args:
        questions: Stream with the job, an object of JSON, and the second line.
        messages: Stream for the answers, one object of JSON in each line.
    """

    def say(message: Mapping[str, Any]) -> None:
        messages.write(json.dumps(message) + "\n")
        messages.flush()

    def step(text: str, done: int, total: int) -> None:
        say({"progress": [text, done, total]})

    def note(text: str) -> None:
        say({"note": text})

    def ready() -> None:
        say({"ready": True})
        if not questions.readline():
            sys.exit("the parent process has ended")

    torch.set_num_threads(1)  # several processes prepare in parallel; the backend sets its own number of threads
    try:
        say({"result": _run_job(json.loads(questions.readline()), step, ready, note)})
    except InputError as reason:
        say({"input_error": str(reason)})
    except RunError as reason:
        say({"run_error": str(reason)})


def _run_job(job: Mapping[str, Any], step: Progress, ready: Ready, note: Callable[[str], None]) -> Any:
    backend = make_backend(**job["backend"])
    backend.note = note
    if "architectures" in job:
        architectures = [Architecture.from_dict(content) for content in job["architectures"]]
        protocol = Protocol(**job["protocol"]) if job.get("protocol") else None
        samples = measure_networks(architectures, backend, protocol=protocol, progress=step, ready=ready)
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
