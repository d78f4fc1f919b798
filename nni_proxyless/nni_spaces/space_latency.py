"""Latency tables of NNI's hub spaces and of users' own: measured by the units of `space_walk.py`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace

from ..errors import InputError
from ..latency.backends.base import Backend
from ..latency.calibration import fit_calibration
from ..latency.measure import CALIBRATION_NETWORKS, measure_modules
from ..latency.protocol import Protocol
from ..latency.sampling import Progress, Timeline, sample_interleaved
from ..latency.table import LatencyTable
from .profiler import LatencyProfiler
from .space_walk import walk


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
    modules = {unit.call: (unit.module, unit.call.inputs[0]) for unit in walk(model_space, input_shape)}
    with backend.session():
        common: dict[str, Any] = {
            "reference": _network(model_space, np.random.RandomState(12345), backend, input_shape)[1]()
            if backend.clocked
            else None,
            "clocked": backend.clocked,
            "timeline": Timeline(),
            "progress": progress,
        }
        table = replace(
            measure_modules(modules, backend, space_name(model_space), protocol=protocol, **common),
            input_shape=tuple(input_shape),
        )
        if calibration_networks == 0 or backend.exact:
            return table
        drawn = [_network(model_space, generator, backend, input_shape) for _ in range(calibration_networks)]
        networks = {f"network {i}": load for i, (_, load) in enumerate(drawn)}
        measured = sample_interleaved(
            networks, network_protocol or backend.calibration_protocol, stage="networks", **common
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
