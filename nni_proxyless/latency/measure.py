"""Measurement of latency tables: each operator alone, then a few whole networks that calibrate the sum."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import InputError
from ..lazy import names_of_modules
from ..network.architecture import Architecture
from ..network.operators import Operator
from ..network.space_spec import SpaceSpec
from .backends.base import Backend, Workload, labelled
from .calibration import calibrate
from .entries import Entry
from .journal import Journal
from .machine_load import LoadMeter
from .protocol import Protocol
from .quality import Quality
from .random_architectures import calibration_architectures, random_architecture
from .sampling import Progress, Samples, Timeline, sample_interleaved
from .table import LatencyTable, OperatorCost

if TYPE_CHECKING:  # settings and files are checked without torch
    from torch import nn

_Entry = TypeVar("_Entry", bound=Entry)
Ready = Callable[[], None]
CALIBRATION_NETWORKS = 12
_EMPTY_CALL = "empty call"


def measure_networks(
    architectures: Sequence[Architecture],
    backend: Backend,
    *,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> list[Samples]:
    """Measure whole networks of one space in one interleaved run.

    Args:
        architectures: Architectures of one space; each is built with fresh weights.
        backend: Backend that runs the networks.
        protocol: Measuring protocol. Defaults to the backend's protocol for networks.
        progress: Callback that receives a text, the number of workloads finished in the current round and the number of
            workloads in the current round.
        ready: Callback called once the networks are built. The measurement starts when it returns.

    Returns:
        Samples of each network, in the same order.
    """
    spec = architectures[0].require_spec()
    loaders = {str(i): backend.loader(a.build(), spec.input_shape) for i, a in enumerate(architectures)}
    return _sample_networks(loaders, spec, backend, protocol, progress, ready)


def measure_file(
    path: Path, spec: SpaceSpec, backend: Backend, *, progress: Progress | None = None, ready: Ready | None = None
) -> Samples:
    """Measure a network that was exported to a file, interleaved with the reference network of its space.

    Args:
        path: Path of the exported model.
        spec: Search space of the network.
        backend: Backend that runs the model.
        progress: Progress callback; see `measure_networks`.
        ready: Callback called once the model is loaded. The measurement starts when it returns.

    Raises:
        InputError: The backend cannot run this file format.
    """
    loaders = {"0": backend.file_loader(path, spec.input_shape)}
    return _sample_networks(loaders, spec, backend, None, progress, ready)[0]


def _sample_networks(
    loaders: Mapping[str, Callable[[], Workload]],
    spec: SpaceSpec,
    backend: Backend,
    protocol: Protocol | None,
    progress: Progress | None,
    ready: Ready | None,
) -> list[Samples]:
    with backend.session():
        reference = _reference(spec, backend)
        if ready:
            ready()
        taken = sample_interleaved(
            loaders,
            protocol or backend.network_protocol,
            reference=reference,
            clocked=backend.clocked,
            progress=progress,
        )
    return list(taken.values())


def measure_table(
    spec: SpaceSpec,
    backend: Backend,
    *,
    calibration_networks: int = CALIBRATION_NETWORKS,
    seed: int = 0,
    protocol: Protocol | None = None,
    network_protocol: Protocol | None = None,
    progress: Progress | None = None,
    journal_path: Path | None = None,
) -> LatencyTable:
    """Measure each distinct operator of a space alone, then calibrate the table on whole networks.

    Args:
        spec: Search space.
        backend: Backend that runs the operators and networks.
        calibration_networks: Number of whole networks for the calibration, including the smallest and the largest one
            of the space; 0 for no calibration. Backends that count exactly are never calibrated.
        seed: Seed of the random calibration networks.
        protocol: Measuring protocol of the operators. Defaults to the backend's protocol for operators.
        network_protocol: Measuring protocol of the calibration networks. Defaults to the backend's protocol for them.
        progress: Progress callback; see `measure_networks`.
        journal_path: Path of the file that stores each sample as it is taken. An interrupted measurement resumes from
            it. The file is kept, so that the raw samples remain available.

    Returns:
        Table with operators as entries. Its calibration states how well the sum of operators fits whole networks.

    Raises:
        InputError: The number of calibration networks is negative, or greater than the number of networks in the space.
        RunError: The backend failed.
    """
    count = calibration_count(spec, backend, calibration_networks)
    table, medians = measure_uncalibrated(
        spec,
        backend,
        calibration_architectures(spec, count, seed),
        protocol=protocol,
        network_protocol=network_protocol,
        progress=progress,
        journal_path=journal_path,
    )
    return calibrate(table, spec, medians) if medians else table


def measure_uncalibrated(
    spec: SpaceSpec,
    backend: Backend,
    architectures: Sequence[Architecture],
    *,
    protocol: Protocol | None = None,
    network_protocol: Protocol | None = None,
    progress: Progress | None = None,
    journal_path: Path | None = None,
    ready: Ready | None = None,
) -> tuple[LatencyTable, dict[str, float]]:
    """Measure each distinct operator of a space alone, then some whole networks; `calibrate` joins the two.

    Args:
        spec: Search space.
        backend: Backend that runs the operators and networks.
        architectures: Networks to measure; none for operators alone.
        protocol: Measuring protocol of the operators; see `measure_table`.
        network_protocol: Measuring protocol of the networks; see `measure_table`.
        progress: Progress callback; see `measure_networks`.
        journal_path: Path of the file that stores each sample; see `measure_table`.
        ready: Callback called once the operators and networks are built. The measurement starts when it returns.

    Returns:
        The uncalibrated table, and the latency of each network in milliseconds by its `Architecture.candidate_names`.

    Raises:
        RunError: The backend failed.
    """
    settings = {
        "space": spec.content_hash,
        "backend": backend.settings,
        "version": backend.version,
        "device": asdict(backend.device),
        "calibration": [architecture.candidate_names for architecture in architectures],
        "protocols": [str(protocol), str(network_protocol)],
    }
    journal = Journal(journal_path, settings) if journal_path else None
    timeline = Timeline(journal)
    try:
        with backend.session():
            reference = _reference(spec, backend)
            modules = {
                op: backend.loader(_operator_module(op, spec), op.input_shape) for op in spec.distinct_operators()
            }
            loaders = {
                f"network {a.candidate_names}": backend.loader(a.build(), spec.input_shape) for a in architectures
            }
            table = measure_modules(
                modules, backend, spec.name,
                protocol=protocol, ready=ready, reference=reference, timeline=timeline, progress=progress,
            )  # fmt: skip
            if not architectures:
                return table, {}
            meter = LoadMeter() if backend.clocked else None
            taken = sample_interleaved(
                loaders,
                network_protocol or backend.calibration_protocol,
                stage="networks",
                reference=reference,
                clocked=backend.clocked,
                timeline=timeline,
                progress=progress,
            )
    finally:
        if journal:
            journal.close()
    medians = {name.removeprefix("network "): samples.median for name, samples in taken.items()}
    return replace(
        table, reference_ms=next(iter(taken.values())).reference, quality=_with_load(table.quality, meter)
    ), medians


def calibration_count(spec: SpaceSpec, backend: Backend, networks: int) -> int:
    """Return the number of calibration networks: `networks`, or 0 if the backend counts exactly.

    Raises:
        InputError: The number is negative, or greater than the number of networks in the space.
    """
    count = 0 if backend.exact else networks
    if count < 0 or count > spec.num_networks:
        raise InputError(
            f"calibration networks must be 0 to {min(spec.num_networks, 10**6)}, which is all that space "
            f"'{spec.name}' has, got {count}"
        )
    return count


def measure_modules(
    modules: Mapping[_Entry, Callable[[], Workload]],
    backend: Backend,
    space: str,
    *,
    protocol: Protocol | None = None,
    ready: Ready | None = None,
    reference: Workload | None = None,
    timeline: Timeline | None = None,
    kind: str = "operators",
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure modules, each alone and interleaved with the others, and return an uncalibrated table.

    Args:
        modules: Function that prepares each module (`Backend.loader`), by the entry of the table.
        backend: Backend that runs the modules.
        space: Name of the modules' space in the table.
        protocol: Measuring protocol. Defaults to the backend's protocol for operators.
        ready: Callback called once the modules are prepared. The measurement starts when it returns.
        reference: Workload that tracks the slowdown of the machine.
        timeline: Samples taken so far, which an interrupted measurement resumes from.
        kind: What the modules are, in the plural, for the text of the progress.
        progress: Progress callback; see `measure_networks`.

    Returns:
        Table without the entries that cost nothing. For example, an activation has no parameters and a reshape has no
        multiply-adds.
    """
    workloads = {str(i): labelled(loader, str(op)) for i, (op, loader) in enumerate(modules.items())}
    if backend.clocked:
        from torch import nn

        workloads[_EMPTY_CALL] = backend.loader(nn.Identity(), (1, 1, 1))
    if ready:
        ready()
    meter = LoadMeter() if backend.clocked else None
    taken = sample_interleaved(
        workloads,
        protocol or backend.operator_protocol,
        reference=reference,
        clocked=backend.clocked,
        timeline=timeline,
        kind=kind,
        progress=progress,
    )
    overhead = taken[_EMPTY_CALL].median if backend.clocked else 0.0
    operators = [samples for name, samples in taken.items() if name != _EMPTY_CALL]
    constant = not backend.exact and all(len(s.raw) > 1 and len(set(s.raw)) == 1 for s in operators)
    return LatencyTable(
        device=backend.device,
        backend=backend.name,
        backend_version=backend.version,
        dtype=backend.dtype,
        batch=backend.batch,
        threads=backend.threads,
        date=now(),
        operators={
            entry: _entry(taken[str(i)], overhead) for i, entry in enumerate(modules) if taken[str(i)].median > 0
        },
        call_overhead_ms=overhead,
        space=space,
        reference_ms=taken["0"].reference,
        unit=backend.unit,
        command=backend.command,
        tool=backend.tool_name,
        device_type="cuda" if backend.settings.get("device") == "cuda" and backend.clocked else None,
        quality=None if backend.exact else _with_load(Quality(constant_samples=constant), meter),
    )


def now() -> str:
    """Return the date and time of a measurement in ISO format."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _with_load(quality: Quality | None, meter: LoadMeter | None) -> Quality | None:
    """Add the load of the machine; the heavier load counts if the quality already has one."""
    if quality is None or meter is None:
        return quality
    load = meter.read()
    return replace(
        quality,
        other_cores=max(load.other_cores, quality.other_cores or 0.0),
        stolen=max(load.stolen, quality.stolen or 0.0),
        cores=load.cores,
    )


def _entry(samples: Samples, overhead: float) -> OperatorCost:
    """Return the cost of an entry: the median without the overhead of calling the backend."""
    # The measured latency of a tiny operator may not exceed the overhead, but the operator's cost must be positive.
    return OperatorCost(max(samples.median - overhead, 0.01 * samples.median), samples.spread, len(samples.raw))


def _reference(spec: SpaceSpec, backend: Backend) -> Workload | None:
    """Prepare the reference network, which tracks the slowdown of the machine. Each space always has the same one."""
    if not backend.clocked:
        return None
    architecture = random_architecture(spec, random.Random("reference"))
    return backend.prepare(architecture.build(), spec.input_shape)


def _operator_module(operator: Operator, spec: SpaceSpec) -> nn.Module:
    from ..network.blocks import initialise

    module = operator.build(spec.norm)
    initialise(module)
    return module


# Version 0.1 had the names of `latency.random_architectures` here.
__getattr__ = names_of_modules(__name__, ["latency.random_architectures"])
