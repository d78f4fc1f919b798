"""Measurement in fresh processes.

A process that has trained a network or imported large libraries distorts measurements: with its allocator and thread
pools, the same network ran 5 to 8 % slower than in a fresh process. Tables and networks that are to be compared are
therefore measured in the same way, in processes that do nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .backends.base import Backend
from .calibration import calibrate
from .fresh_process import FreshProcess
from .judgement import findings, improvable, process_spread, verdict, with_verdict
from .measure import CALIBRATION_NETWORKS, calibration_count
from .protocol import Protocol
from .quality import Quality
from .random_architectures import calibration_architectures
from .sampling import Progress, Samples
from .table import LatencyTable, OperatorCost

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
PROCESSES = 3
TABLE_PROCESSES = 2
MOST_TABLE_PROCESSES = 6


def measure_isolated(architecture: Architecture, backend: Backend, **settings: Any) -> float:
    """Measure the latency of one architecture in milliseconds; see `measure_networks_isolated` for the settings."""
    return measure_networks_isolated([architecture], backend, **settings)[0].median


def measure_networks_isolated(
    architectures: Sequence[Architecture],
    backend: Backend,
    *,
    processes: int = PROCESSES,
    reference_ms: float | None = None,
    progress: Progress | None = None,
) -> list[Samples]:
    """Run `measure_networks` in fresh processes, one after the other.

    Some processes get slower memory: all networks in them, including the reference network, are 5 to 15 % slower for
    the whole life of the process. Latencies are therefore compared by their ratio to the reference network. For each
    network, the samples of the process with the median ratio are used. They are rescaled to the process with the
    fastest reference, or to `reference_ms`.

    Args:
        architectures: Architectures of one space. Their dictionaries describe the space, and each process builds them
            again.
        backend: Backend that runs the networks.
        processes: Number of processes. Only one is used if the backend is not clocked (`Backend.clocked`).
        reference_ms: Latency of the reference network to which the samples are rescaled, in milliseconds. Pass the
            value of an earlier measurement to make the results comparable with it.
        progress: Callback that receives a text, the number of workloads finished in the current round and the number of
            workloads in the current round.

    Returns:
        Samples of each architecture, in the same order.

    Raises:
        InputError: An input is invalid in the measuring process.
        RunError: A process failed. The message includes the last line of its output on stderr.
    """
    return _measure_isolated(_networks_job(architectures), backend, processes, reference_ms, progress)


def measure_file_isolated(
    path: Path,
    architecture: Architecture,
    backend: Backend,
    *,
    processes: int = PROCESSES,
    reference_ms: float | None = None,
    progress: Progress | None = None,
) -> Samples:
    """Run `measure_file` in fresh processes, one after the other; see `measure_networks_isolated`.

    Args:
        path: Path of the exported model.
        architecture: Architecture that was exported.
        backend: Backend that runs the model.
        processes: Number of processes. Only one is used if the backend is not clocked (`Backend.clocked`).
        reference_ms: Latency of the reference network to which the samples are rescaled, in milliseconds. Pass the
            value of an earlier measurement to make the results comparable with it.
        progress: Progress callback; see `measure_networks_isolated`.

    Raises:
        InputError: The backend cannot run this file format.
        RunError: A process failed. The message includes the last line of its output on stderr.
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
    runs = _runs(answers)
    level = reference_ms or _lowest(samples[0].reference for samples in runs)
    return [_middle(samples, key=lambda s: s.ratio).at_level(level) for samples in zip(*runs, strict=True)]


def measure_table_isolated(
    spec: SpaceSpec,
    backend: Backend,
    *,
    processes: int = TABLE_PROCESSES,
    most_processes: int = MOST_TABLE_PROCESSES,
    progress: Progress | None = None,
    journal_path: Path | None = None,
    **settings: Any,
) -> LatencyTable:
    """Run `measure_table` in fresh processes, one after the other, and combine the tables.

    Every process measures all operators and a share of the calibration networks. With a backend that asks for it
    (`Backend.networks_apart`), as many further processes measure all calibration networks instead. The latency of an
    operator is the median over the processes, after the latencies of each process have been rescaled to the process
    with the fastest reference network. While the table is not good (`judgement.verdict`), and further measurement may
    help, further processes measure.

    Args:
        spec: Search space.
        backend: Backend that runs the operators and networks.
        processes: Number of processes. Only one is used if the backend is not clocked (`Backend.clocked`).
        most_processes: Number of processes after which the table is returned even if it is not good.
        progress: Progress callback; see `measure_networks_isolated`.
        journal_path: Path of the sample journals. Each process appends its number to it: `.1`, `.2` and so on; see
            `measure_table` and `journals`.
        **settings: Arguments of `measure_table`: `calibration_networks`, `seed`, `protocol`, `network_protocol`.

    Raises:
        InputError: The number of calibration networks is negative, or greater than the number of networks in the space.
        RunError: A process failed. The message includes the last line of its output on stderr.
    """
    total = calibration_count(spec, backend, settings.pop("calibration_networks", CALIBRATION_NETWORKS))
    seed = settings.pop("seed", 0)
    count = processes if backend.clocked else 1
    own = {key: _plain(value) for key, value in settings.items()}
    chosen = calibration_architectures(spec, total, seed)
    apart = backend.networks_apart and bool(chosen)
    networks = [] if apart else [architecture.candidate_names for architecture in chosen]

    def job(number: int) -> dict[str, Any]:
        path = f"{journal_path}.{number}" if journal_path else None
        share = networks[(number - 1) % count :: count]
        return {"space": spec.to_dict(), "settings": {**own, "networks": share, "journal_path": path}}

    jobs = [job(number) for number in range(1, count + 1)]
    if apart:
        jobs += [_networks_job(chosen, own.get("network_protocol"))] * count
    answers = _in_fresh_processes(jobs, backend, progress)
    answers, networks_alone = answers[:count], _runs(answers[count:])
    table = _combined(answers, spec, chosen, networks_alone)
    while backend.clocked and len(answers) < most_processes and verdict(table) and improvable(table):
        _log.info(
            "not good yet: %s; measuring in process %d of at most %d",
            findings(table)[0].text, len(answers) + 1, most_processes,
        )  # fmt: skip
        jobs = [job(len(answers) + 1), *([_networks_job(chosen, own.get("network_protocol"))] if apart else [])]
        answer, *more = _in_fresh_processes(jobs, backend, progress)
        answers.append(answer)
        networks_alone += _runs(more)
        table = _combined(answers, spec, chosen, networks_alone)
    return table


def _networks_job(architectures: Sequence[Architecture], protocol: Any = None) -> dict[str, Any]:
    return {
        "architectures": [replace(a, measured_latency_ms=None).to_dict() for a in architectures],
        "protocol": protocol,
    }


def _runs(answers: Sequence[Any]) -> list[list[Samples]]:
    """Return the samples of each network, for each process that measured networks only."""
    return [[Samples(tuple(raw), tuple(slow), level) for raw, slow, level in answer] for answer in answers]


def _combined(
    answers: Sequence[Any],
    spec: SpaceSpec,
    chosen: Sequence[Architecture] = (),
    networks_alone: Sequence[Sequence[Samples]] = (),
) -> LatencyTable:
    """Combine what several processes have measured into one calibrated table.

    Args:
        answers: Table and network latencies of each process that has measured operators.
        spec: Search space.
        chosen: Calibration networks.
        networks_alone: Samples of these networks, for each process that has measured networks only.
    """
    tables = [LatencyTable.from_dict(content) for content, _ in answers]
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
    table = replace(
        tables[-1],
        operators=operators,
        call_overhead_ms=min(table.call_overhead_ms for table in tables),
        reference_ms=level,
        quality=_quality(tables, factors),
    )
    if networks_alone:
        table = replace(table, reference_ms=_lowest(run[0].reference for run in networks_alone))
        middle = (_middle(samples, key=lambda s: s.ratio) for samples in zip(*networks_alone, strict=True))
        names = (architecture.candidate_names for architecture in chosen)
        medians = (samples.at_level(table.reference_ms).median for samples in middle)
        return calibrate(table, spec, dict(zip(names, medians, strict=True)))
    measured: dict[str, list[float]] = {}
    for (_, medians), f in zip(answers, factors, strict=True):
        for name, ms in medians.items():
            measured.setdefault(name, []).append(f * ms)
    return (
        calibrate(table, spec, {k: statistics.median(v) for k, v in measured.items()})
        if measured
        else with_verdict(table)
    )


def _quality(tables: Sequence[LatencyTable], factors: Sequence[float]) -> Quality | None:
    """Combine what the processes have seen: the mean load, and how far their latencies differ."""
    seen = [table.quality for table in tables if table.quality is not None]
    if not seen:
        return None
    costs = [[f * cost.cost for cost in table.operators.values()] for table, f in zip(tables, factors, strict=True)]
    loads = [(q.other_cores, q.stolen) for q in seen if q.other_cores is not None and q.stolen is not None]
    others, stolen = (statistics.fmean(column) for column in zip(*loads, strict=True)) if loads else (None, None)
    return Quality(
        process_spread=process_spread(costs),
        constant_samples=all(q.constant_samples for q in seen),
        other_cores=others,
        stolen=stolen,
        cores=seen[0].cores,
    )


def _lowest(levels: Iterable[float | None]) -> float | None:
    return min((level for level in levels if level is not None), default=None)


def _middle(values: Sequence[_T], key: Callable[[_T], float]) -> _T:
    """Return the median; with an even number of values, the lower of the two middle ones."""
    return sorted(values, key=key)[(len(values) - 1) // 2]


def journals(journal_path: Path) -> list[Path]:
    """List the existing journal files that `measure_table_isolated` wrote for this `journal_path`."""
    return sorted(journal_path.parent.glob(f"{journal_path.name}.*"))


def _step(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Wrap a progress callback so that its text names the process."""
    if progress is None:
        return None
    report = progress

    def step(text: str, done: int, total: int) -> None:
        report(f"{text}, process {number} of {count}" if count > 1 else text, done, total)

    return step


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Protocol) else str(value) if isinstance(value, Path) else value


def _in_fresh_processes(jobs: Sequence[Mapping[str, Any]], backend: Backend, progress: Progress | None) -> list[Any]:
    """Run each job in a fresh process and return the results.

    All processes prepare their workloads in parallel. They then measure one after the other, without anything else
    running.

    Raises:
        InputError: A process reported invalid input.
        RunError: A process failed. The message includes the last line of its output on stderr.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for job in jobs:
            workers.append(FreshProcess({**job, "backend": backend.settings}))
            stack.callback(workers[-1].close)
        for worker in workers:
            worker.wait_until_ready()
        return [
            worker.measure(backend.name, _step(progress, number, len(jobs)))
            for number, worker in enumerate(workers, start=1)
        ]
