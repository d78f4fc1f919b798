"""Latency tables of NNI's hub spaces and of users' own: measured by the units of `space_walk.py`."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace
from torch import nn

from .errors import InputError
from .latency.backend import Backend
from .latency.calibration import fit_calibration
from .latency.measure import CALIBRATION_NETWORKS, entry_of
from .latency.sampling import Progress, Protocol, Timeline, ready, sample_interleaved
from .latency.table import LatencyTable
from .profiler import LatencyProfiler
from .space_walk import walk

_EMPTY_CALL = "empty call"


def space_name(model_space: ModelSpace) -> str:
    """How tables call a model space: its class."""
    return f"{type(model_space).__module__}.{type(model_space).__qualname__}"


def measure_model_space(
    model_space: ModelSpace,
    input_shape: tuple[int, ...],
    backend: Backend,
    *,
    calibration_networks: int = CALIBRATION_NETWORKS,
    seed: int = 0,
    protocol: Protocol | None = None,
    network_protocol: Protocol | None = None,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure the modules of any NNI model space, then calibrate on whole networks.

    Args:
        model_space: NNI's hub's, or your own; its choices may be LayerChoices, Repeats and choices of values.
        input_shape: Shape of one input, without the batch dimension.
        backend: What runs the modules.
        calibration_networks: Random networks to calibrate on; 0 for none. What is counted exactly needs none.
        seed: Draws them.
        protocol: How long to measure modules; the backend's own if not given.
        network_protocol: How long to measure the whole networks; the backend's own if not given.
        progress: Called with a text, steps done and steps at most.

    Returns:
        A table for `LatencyProfiler(model_space, table)`.

    Raises:
        InputError: The number of calibration networks is negative.
        SpaceError: NNI's shape inference does not get through the space.
        RunError: The backend failed.
    """
    if calibration_networks < 0:
        raise InputError(f"calibration networks must be a number from 0, got {calibration_networks}")
    generator = np.random.RandomState(seed)  # what NNI draws with
    modules = {unit.call: unit.module for unit in walk(model_space, input_shape)}
    with backend.session():
        workloads: dict[str, Any] = {
            str(i): ready(backend.prepare(module, call.inputs[0])) for i, (call, module) in enumerate(modules.items())
        }
        if backend.clocked:
            workloads[_EMPTY_CALL] = ready(backend.prepare(nn.Identity(), (1, 1, 1)))
        common: dict[str, Any] = {
            "reference": _network(model_space, np.random.RandomState(12345), backend, input_shape)[1]()
            if backend.clocked
            else None,
            "clocked": backend.clocked,
            "timeline": Timeline(),
            "progress": progress,
        }
        taken = sample_interleaved(workloads, protocol or backend.operator_protocol, **common)
        del workloads
        overhead = taken[_EMPTY_CALL].median if backend.clocked else 0.0
        table = LatencyTable(
            device=backend.device,
            backend=backend.name,
            backend_version=backend.version,
            dtype=backend.dtype,
            batch=backend.batch,
            threads=backend.threads,
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            operators={
                call: entry_of(taken[str(i)], overhead)
                for i, call in enumerate(modules)
                if taken[str(i)].median > 0  # an activation has no parameters, a reshape no multiply-adds
            },
            call_overhead_ms=overhead,
            space=space_name(model_space),
            unit=backend.unit,
            command=backend.command,
            input_shape=tuple(input_shape),
        )
        if calibration_networks == 0 or backend.exact:
            return table
        drawn = [_network(model_space, generator, backend, input_shape) for _ in range(calibration_networks)]
        networks = {f"network {i}": load for i, (_, load) in enumerate(drawn)}
        measured = sample_interleaved(
            networks, network_protocol or backend.network_protocol, stage="networks", **common
        )
    profiler = LatencyProfiler(model_space, table)
    sums = [float(profiler.profile(sample)) for sample, _ in drawn]
    return replace(table, calibration=fit_calibration(sums, [measured[name].median for name in networks]))


def _network(
    model_space: ModelSpace, generator: np.random.RandomState, backend: Backend, input_shape: tuple[int, ...]
) -> tuple[dict[str, Any], Any]:
    """A random sample of a space, and the network that it is."""
    sample: dict[str, Any] = {}
    frozen = model_space.random(sample, random_state=generator)
    with torch.no_grad():
        return sample, backend.loader(frozen, input_shape)
