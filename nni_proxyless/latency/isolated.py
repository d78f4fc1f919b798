"""Measuring in a process of its own.

A process that has trained, or loaded half of the machine-learning world, is a poor place to measure in: its
allocator and thread pools made the same network 5 to 8 % slower than a fresh process did. Tables and networks that
are to be compared are therefore measured alike, each in a process that does nothing else.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..errors import InputError, RunError
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .backends.base import Backend
from .backends.by_name import make_backend
from .measure import (
    CALIBRATION_NETWORKS,
    Ready,
    calibrate,
    calibration_architectures,
    calibration_count,
    measure_file,
    measure_networks,
    measure_table,
)
from .protocol import Protocol
from .sampling import Progress, Samples
from .table import LatencyTable, OperatorCost

_T = TypeVar("_T")
PROCESSES = 3
TABLE_PROCESSES = 2


def measure_isolated(architecture: Architecture, backend: Backend, **settings: Any) -> float:
    """Latency of an architecture in milliseconds; see `measure_networks_isolated` for the settings."""
    return measure_networks_isolated([architecture], backend, **settings)[0].median


def measure_networks_isolated(
    architectures: Sequence[Architecture],
    backend: Backend,
    *,
    processes: int = PROCESSES,
    reference_ms: float | None = None,
    progress: Progress | None = None,
) -> list[Samples]:
    """`measure_networks` in fresh processes, one after the other.

    Some processes get slower memory and are slower by 5 to 15 % for all of their life, the reference network with them.
    So networks are compared by their ratio to the reference: of each, the samples of the process with the middle ratio
    count, at the level of the process whose reference was fastest, or at `reference_ms`.

    Args:
        architectures: Of one space that their files describe; built anew in each process.
        backend: What runs them.
        processes: How many processes; one where the backend's own clock or none is used.
        reference_ms: Latency of the reference network at the time that the results are to be compared with.
        progress: Called with a text, steps done and steps.

    Raises:
        RunError: A process failed; the message holds its last line.
    """
    job = {"architectures": [replace(a, measured_latency_ms=None).to_dict() for a in architectures]}
    return _measure_isolated(job, backend, processes, reference_ms, progress)


def measure_file_isolated(
    path: Path,
    architecture: Architecture,
    backend: Backend,
    *,
    processes: int = PROCESSES,
    reference_ms: float | None = None,
    progress: Progress | None = None,
) -> Samples:
    """`measure_file` in fresh processes, one after the other; see `measure_networks_isolated`.

    Args:
        path: The exported model.
        architecture: What it was exported from.
        backend: What runs it.
        processes: How many processes; one where the backend's own clock or none is used.
        reference_ms: Latency of the reference network at the time that the result is to be compared with.
        progress: Called with a text, steps done and steps.

    Raises:
        InputError: The backend does not run such a file.
        RunError: A process failed; the message holds its last line.
    """
    job = {"file": str(path.resolve()), "space": architecture.require_spec().to_dict()}
    return _measure_isolated(job, backend, processes, reference_ms, progress)[0]


def _measure_isolated(
    job: Mapping[str, Any],
    backend: Backend,
    processes: int,
    reference_ms: float | None,
    progress: Progress | None,
) -> list[Samples]:
    answers = _in_fresh_processes([job] * (processes if backend.clocked else 1), backend, progress)
    runs = [[Samples(tuple(raw), tuple(slow), level) for raw, slow, level in answer] for answer in answers]
    level = reference_ms or _lowest(samples[0].reference for samples in runs)
    return [_middle(samples, key=lambda s: s.ratio).at_level(level) for samples in zip(*runs, strict=True)]


def measure_table_isolated(
    spec: SpaceSpec,
    backend: Backend,
    *,
    processes: int = TABLE_PROCESSES,
    progress: Progress | None = None,
    journal_path: Path | None = None,
    **settings: Any,
) -> LatencyTable:
    """`measure_table` in fresh processes, one after the other.

    Each operator is the median over the processes of its ratio to the reference; the calibration networks are shared
    out among them.

    Args:
        spec: The space.
        backend: What runs the operators.
        processes: How many processes; one where the backend's own clock or none is used.
        progress: Called with a text, steps done and steps.
        journal_path: Where samples are kept, with `.1`, `.2` and so on added; see `measure_table` and `journals`.
        **settings: `calibration_networks`, `seed`, `protocol`, `network_protocol` of `measure_table`.

    Raises:
        InputError: As `measure_table`.
        RunError: A process failed; the message holds its last line.
    """
    total = calibration_count(spec, backend, settings.pop("calibration_networks", CALIBRATION_NETWORKS))
    seed = settings.pop("seed", 0)
    count = processes if backend.clocked else 1
    own = {key: _plain(value) for key, value in settings.items()}
    networks = [architecture.candidate_names for architecture in calibration_architectures(spec, total, seed)]
    jobs = []
    for number in range(1, count + 1):
        share = networks[number - 1 :: count]
        settings = {
            **own,
            "calibration_networks": len(share),
            "networks": share,
            "journal_path": f"{journal_path}.{number}" if journal_path else None,
        }
        jobs.append({"space": spec.to_dict(), "settings": settings})
    answers = _in_fresh_processes(jobs, backend, progress)
    tables = [LatencyTable.from_dict(content) for content, _ in answers]
    measured: list[dict[str, float]] = [medians for _, medians in answers]
    level = _lowest(table.reference_ms for table in tables)
    factors = [level / table.reference_ms if level and table.reference_ms else 1.0 for table in tables]
    operators = {
        entry: OperatorCost(
            statistics.median(f * table.operators[entry].cost for table, f in zip(tables, factors, strict=True)),
            statistics.median(f * table.operators[entry].spread for table, f in zip(tables, factors, strict=True)),
            sum(table.operators[entry].runs for table in tables),
        )
        for entry in tables[0].operators
    }
    overhead = min(table.call_overhead_ms for table in tables)
    table = replace(tables[-1], operators=operators, call_overhead_ms=overhead, reference_ms=level)
    if total == 0:
        return table
    return calibrate(
        table,
        spec,
        {name: f * ms for medians, f in zip(measured, factors, strict=True) for name, ms in medians.items()},
    )


def _lowest(levels: Iterable[float | None]) -> float | None:
    return min((level for level in levels if level is not None), default=None)


def _middle(values: Sequence[_T], key: Callable[[_T], float]) -> _T:
    """The median; the lower of the two in the middle of an even number."""
    return sorted(values, key=key)[(len(values) - 1) // 2]


def journals(journal_path: Path) -> list[Path]:
    """The files that `measure_table_isolated` keeps its samples in."""
    return sorted(journal_path.parent.glob(f"{journal_path.name}.*"))


def _step(progress: Progress | None, number: int, count: int) -> Progress | None:
    """A progress that says which process it is of."""
    if progress is None:
        return None
    report = progress

    def step(text: str, done: int, total: int) -> None:
        report(f"process {number} of {count}, {text}" if count > 1 else text, done, total)

    return step


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Protocol) else str(value) if isinstance(value, Path) else value


class _FreshProcess:
    """A process for one job: it makes what is to be measured, waits for its turn, and measures."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  closed by `close`
        command = [sys.executable, "-W", "ignore", "-m", __name__]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self._message: dict[str, Any] = {}
        self._say(json.dumps(job))

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process says why on stderr
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self, until: str, progress: Progress | None = None) -> None:
        """Read messages until one of that kind, an error or the end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._message = json.loads(line)
            if "progress" in self._message and progress:
                progress(*self._message["progress"])
            if self._message.keys() & {until, "input_error", "run_error"}:
                return

    def wait_until_ready(self) -> None:
        """Wait until all is made, or until it failed: then `measure` says why."""
        self._read("ready")

    def measure(self, backend: str, progress: Progress | None) -> Any:
        """Give the process its turn and wait for its result.

        Raises:
            InputError: The job is at fault.
            RunError: The process failed; the message holds its last line.
        """
        if "ready" in self._message:
            self._say("go")
            self._read("result", progress)
        if "input_error" in self._message:
            raise InputError(self._message["input_error"])
        self._process.wait()  # its end takes time too, and must not fall into the next one's turn
        if "result" in self._message:
            return self._message["result"]
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or [f"exit code {self._process.returncode}"]
        raise RunError(f"measuring with {backend} failed: {self._message.get('run_error', lines[-1])}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


def _in_fresh_processes(jobs: Sequence[Mapping[str, Any]], backend: Backend, progress: Progress | None) -> list[Any]:
    """What each job answers. All make ready side by side; they measure one after the other, and nothing else runs.

    Raises:
        InputError: A job is at fault.
        RunError: A process failed; the message holds its last line.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for job in jobs:
            workers.append(_FreshProcess({**job, "backend": backend.settings}))
            stack.callback(workers[-1].close)
        for worker in workers:
            worker.wait_until_ready()
        return [
            worker.measure(backend.name, _step(progress, number, len(jobs)))
            for number, worker in enumerate(workers, start=1)
        ]


def _main() -> None:
    def say(message: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    def step(text: str, done: int, total: int) -> None:
        say({"progress": [text, done, total]})

    def ready() -> None:
        say({"ready": True})
        if not sys.stdin.readline():
            sys.exit("whoever started this process is gone")

    torch.set_num_threads(1)  # several make ready at once; the backend sets what it measures with
    try:
        say({"result": _do(json.loads(sys.stdin.readline()), step, ready)})
    except InputError as reason:
        say({"input_error": str(reason)})
    except RunError as reason:
        say({"run_error": str(reason)})


def _do(job: Mapping[str, Any], step: Progress, ready: Ready) -> Any:
    backend = make_backend(**job["backend"])
    if "architectures" in job:
        architectures = [Architecture.from_dict(content) for content in job["architectures"]]
        samples = measure_networks(architectures, backend, progress=step, ready=ready)
        return [(s.raw, s.slowdown, s.reference) for s in samples]
    if "file" in job:
        space = SpaceSpec.from_dict(job["space"])
        taken = measure_file(Path(job["file"]), space, backend, progress=step, ready=ready)
        return [(taken.raw, taken.slowdown, taken.reference)]
    settings: dict[str, Any] = {
        key: Protocol(**value) if isinstance(value, dict) else value for key, value in job["settings"].items()
    }
    if settings.get("journal_path"):
        settings["journal_path"] = Path(settings["journal_path"])
    medians: dict[str, float] = {}
    table = measure_table(
        SpaceSpec.from_dict(job["space"]), backend, progress=step, measured_ms=medians, ready=ready, **settings
    )
    return table.to_dict(), medians


if __name__ == "__main__":
    _main()
