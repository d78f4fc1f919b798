"""Measuring: operators alone and interleaved, then a few whole networks that calibrate the sum."""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import nn

from ..errors import InputError
from ..network.architecture import Architecture
from ..network.blocks import initialise
from ..network.operators import Operator
from ..network.space_spec import SpaceSpec
from .backends.base import Backend, Workload
from .calibration import fit_calibration, fit_corrections
from .entries import Entry
from .journal import Journal
from .protocol import Protocol
from .sampling import Progress, Samples, Timeline, sample_interleaved
from .table import LatencyTable, OperatorCost

_Entry = TypeVar("_Entry", bound=Entry)
Ready = Callable[[], None]
CALIBRATION_NETWORKS = 12
# What converts an operator's input and output only where the operator runs alone (calibration.py). PyTorch does not,
# and was predicted worse with corrections; for int8 they have not been tried.
_CONVERTING = (("onnxruntime", "float32"),)
_LEAST_LEFT = 0.2  # of an operator's own measurement, whatever is taken off
_EMPTY_CALL = "empty call"


def measure_networks(
    architectures: Sequence[Architecture],
    backend: Backend,
    *,
    protocol: Protocol | None = None,
    progress: Progress | None = None,
    ready: Ready | None = None,
) -> list[Samples]:
    """Cost of whole networks of one space, measured in one interleaved run.

    Args:
        architectures: The networks, built freshly.
        backend: What runs them.
        protocol: How long; the backend's own for networks if not given.
        progress: Called with a text, rounds done and rounds at most.
        ready: Called when all is made; measuring begins when it returns.

    Returns:
        The samples of each, in the same order.
    """
    spec = architectures[0].require_spec()
    loaders = {str(i): backend.loader(a.build(), spec.input_shape) for i, a in enumerate(architectures)}
    return _sample_networks(loaders, spec, backend, protocol, progress, ready)


def measure_file(
    path: Path, spec: SpaceSpec, backend: Backend, *, progress: Progress | None = None, ready: Ready | None = None
) -> Samples:
    """Cost of a network that was exported to a file, beside the reference network of its space.

    Args:
        path: The exported model.
        spec: The space that the network is of.
        backend: What runs it.
        progress: Called with a text, rounds done and rounds at most.
        ready: Called when all is made; measuring begins when it returns.

    Raises:
        InputError: The backend does not run such a file.
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
    networks: Sequence[str] | None = None,
    measured_ms: dict[str, float] | None = None,
    ready: Ready | None = None,
) -> LatencyTable:
    """Measure each distinct operator of a space alone, then calibrate on whole networks.

    Args:
        spec: The space.
        backend: What runs the operators.
        calibration_networks: Whole networks, the smallest and the largest of the space among them; 0 for none. What
            is counted exactly needs none.
        seed: Draws the other networks.
        protocol: How long to measure operators; the backend's own if not given.
        network_protocol: How long to measure the whole networks; the backend's own if not given.
        progress: Called with a text, steps done and steps at most.
        journal_path: Where samples are kept as they are taken. A measurement that was interrupted goes on from
            there; the file stays, for whoever wants the raw samples.
        networks: The `Architecture.candidate_names` to calibrate on, instead of drawing some.
        measured_ms: Is given the latency of each calibration network, for a caller who calibrates: the table is not.
        ready: Called when all that can be made beforehand is; measuring begins when it returns.

    Returns:
        The calibrated table; its entries are operators, its calibration says how well the sum fits networks.

    Raises:
        InputError: The number of calibration networks is negative, or more than the space has.
        RunError: The backend failed.
    """
    count = calibration_count(spec, backend, calibration_networks)
    if networks is None:
        architectures = calibration_architectures(spec, count, seed)
    else:
        labels = [layer.label for layer in spec.layers]
        architectures = [
            Architecture.of_space(spec, dict(zip(labels, names.split(), strict=True))) for names in networks
        ]
    settings = {
        "space": spec.content_hash,
        "backend": backend.settings,
        "version": backend.version,
        "device": asdict(backend.device),
        "calibration": [architecture.candidate_names for architecture in architectures],
        "protocols": [str(protocol), str(network_protocol)],
    }
    journal = Journal(journal_path, settings) if journal_path else None
    try:
        common: dict[str, Any] = {
            "clocked": backend.clocked,
            "timeline": Timeline(journal),
            "progress": progress,
        }
        with backend.session():
            common["reference"] = _reference(spec, backend)
            modules = {op: (_operator_module(op, spec), op.input_shape) for op in spec.distinct_operators()}
            loaders = {
                f"network {a.candidate_names}": backend.loader(a.build(), spec.input_shape) for a in architectures
            }
            table = measure_modules(modules, backend, spec.name, protocol=protocol, ready=ready, **common)
            if count == 0:
                return table
            taken = sample_interleaved(
                loaders,
                network_protocol or backend.calibration_protocol,
                stage="networks",
                **common,
            )
    finally:
        if journal:
            journal.close()
    medians = {name.removeprefix("network "): samples.median for name, samples in taken.items()}
    table = replace(table, reference_ms=next(iter(taken.values())).reference)
    if measured_ms is not None:
        measured_ms.update(medians)
        return table
    return calibrate(table, spec, medians)


def calibration_count(spec: SpaceSpec, backend: Backend, networks: int) -> int:
    """How many networks to calibrate on: those asked for, or none where sums are exact.

    Raises:
        InputError: The number is negative, or more than the space has.
    """
    count = 0 if backend.exact else networks
    if count < 0 or count > spec.num_networks:
        raise InputError(
            f"calibration networks must be 0 to {min(spec.num_networks, 10**6)}, which is all that space "
            f"'{spec.name}' has, got {count}"
        )
    return count


def measure_modules(
    modules: Mapping[_Entry, tuple[nn.Module, tuple[int, ...]]],
    backend: Backend,
    space: str,
    *,
    protocol: Protocol | None = None,
    ready: Ready | None = None,
    **common: Any,
) -> LatencyTable:
    """Measure modules one at a time and interleaved: an uncalibrated table.

    Args:
        modules: A module and its input shape, without the batch dimension, for each entry of the table.
        backend: What runs them.
        space: How the table calls the space they are from.
        protocol: How long; the backend's own if not given.
        ready: Called when all is made; measuring begins when it returns.
        **common: Passed to `sample_interleaved`.

    Returns:
        A table of those entries that cost anything: an activation has no parameters, a reshape no multiply-adds.
    """
    workloads = {str(i): backend.loader(*what) for i, what in enumerate(modules.values())}
    if backend.clocked:
        workloads[_EMPTY_CALL] = backend.loader(nn.Identity(), (1, 1, 1))
    if ready:
        ready()
    taken = sample_interleaved(workloads, protocol or backend.operator_protocol, **common)
    overhead = taken[_EMPTY_CALL].median if backend.clocked else 0.0
    return LatencyTable(
        device=backend.device,
        backend=backend.name,
        backend_version=backend.version,
        dtype=backend.dtype,
        batch=backend.batch,
        threads=backend.threads,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        operators={
            entry: _entry(taken[str(i)], overhead) for i, entry in enumerate(modules) if taken[str(i)].median > 0
        },
        call_overhead_ms=overhead,
        space=space,
        reference_ms=taken["0"].reference,
        unit=backend.unit,
        command=backend.command,
        device_type="cuda" if backend.settings.get("device") == "cuda" and backend.clocked else None,
    )


def calibrate(table: LatencyTable, spec: SpaceSpec, measured_ms: Mapping[str, float]) -> LatencyTable:
    """Correct a table's operators for what differs inside a network, and fit its calibration to whole networks.

    Args:
        table: The table.
        spec: The space.
        measured_ms: Latency of each network in milliseconds, by its `Architecture.candidate_names`.
    """
    labels = [layer.label for layer in spec.layers]
    networks = [spec.operators(dict(zip(labels, names.split(), strict=True))) for names in measured_ms]
    measured = list(measured_ms.values())
    amounts = [np.sum([_amounts(op) for op in operators], axis=0) for operators in networks]
    corrections: tuple[float, ...] = (0.0, 0.0)
    if (table.backend, table.dtype) in _CONVERTING:
        sums = [table.sum(operators) for operators in networks]
        corrections = fit_corrections(sums, np.array(amounts), measured)
    table = replace(
        table,
        operators={
            op: replace(cost, cost=max(cost.cost + float(np.dot(corrections, _amounts(op))), _LEAST_LEFT * cost.cost))
            if isinstance(op, Operator)
            else cost
            for op, cost in table.operators.items()
        },
    )
    calibration = fit_calibration([table.sum(operators) for operators in networks], measured)
    return replace(
        table,
        calibration=replace(
            calibration,
            architectures=tuple(measured_ms),
            ms_per_million_values=corrections[0],
            ms_per_million_parameters=corrections[1],
        ),
    )


def _amounts(operator: Operator) -> tuple[float, float]:
    """Millions of values that go into an operator and come out of it for one image, and of its parameters."""
    values = math.prod(operator.input_shape) + math.prod(operator.output_shape)
    return values / 1e6, operator.parameters / 1e6


def _entry(samples: Samples, overhead: float) -> OperatorCost:
    """A table's entry: the median less what the call of the backend costs."""
    # A tiny operator can be as cheap as the call; it still costs something.
    return OperatorCost(max(samples.median - overhead, 0.01 * samples.median), samples.spread, len(samples.raw))


def _reference(spec: SpaceSpec, backend: Backend) -> Workload | None:
    """The network that tells how slow the machine is: always the same one of a space."""
    if not backend.clocked:
        return None
    architecture = random_architecture(spec, random.Random("reference"))
    return backend.prepare(architecture.build(), spec.input_shape)


def random_architecture(spec: SpaceSpec, generator: random.Random) -> Architecture:
    """One architecture, each candidate of a layer equally likely."""
    return Architecture.of_space(spec, {layer.label: generator.choice(layer.names) for layer in spec.layers})


def draw_architectures(
    spec: SpaceSpec, count: int, generator: random.Random, known: Collection[str] = ()
) -> list[Architecture]:
    """Different random architectures, none of them among the known ones.

    Args:
        spec: The space.
        count: How many.
        generator: Draws them.
        known: `Architecture.candidate_names` of those to leave out.

    Raises:
        InputError: The space has not that many left.
    """
    if count > spec.num_networks - len(set(known)):
        raise InputError(
            f"{count} networks were asked for, but space '{spec.name}' has {spec.num_networks} in all, "
            f"{len(set(known))} of which are taken"
        )
    drawn: dict[str, Architecture] = {}
    while len(drawn) < count:
        architecture = random_architecture(spec, generator)
        if architecture.candidate_names not in known:
            drawn[architecture.candidate_names] = architecture
    return list(drawn.values())


def calibration_architectures(spec: SpaceSpec, count: int, seed: int) -> list[Architecture]:
    """The networks that calibrate a table: the smallest and the largest by multiply-adds, then random ones."""
    ends = {}
    for pick in (min, max):
        choices = {}
        for layer in spec.layers:
            sizes = {name: operator.multiply_adds if operator else 0 for name, operator in layer.candidates.items()}
            choices[layer.label] = pick(sizes, key=sizes.__getitem__)
        architecture = Architecture.of_space(spec, choices)
        ends[architecture.candidate_names] = architecture
    left = max(0, count - len(ends))
    return (list(ends.values()) + draw_architectures(spec, left, random.Random(f"calibration {seed}"), ends))[:count]


def _operator_module(operator: Operator, spec: SpaceSpec) -> nn.Module:
    module = operator.build(spec.norm)
    initialise(module)
    return module
