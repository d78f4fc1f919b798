"""Measurement of latency tables for NNI's hub spaces and users' own spaces, by the units of `space_walk.py`."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from nni.nas.nn.pytorch import ModelSpace

from ..errors import InputError
from ..latency.backends.base import Backend
from ..latency.calibration import fit_calibration
from ..latency.judgement import rank_correlation, warnings_of, with_verdict
from ..latency.measure import CALIBRATION_NETWORKS, measure_modules
from ..latency.protocol import Protocol
from ..latency.quality import Quality
from ..latency.sampling import Progress, Timeline, sample_interleaved
from ..latency.table import LatencyTable
from .profiler import LatencyProfiler
from .space_walk import walk

_log = logging.getLogger(__name__)


def space_name(model_space: ModelSpace) -> str:
    """Name of a model space in tables: the full name of its class."""
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
    """Measure the modules of any NNI model space, then calibrate the table on whole networks.

    Args:
        model_space: NNI model space, from NNI's hub or the user's own. Its choices may be LayerChoices, Repeats and
            choices of values.
        input_shape: Shape of one input, without the batch dimension.
        backend: Backend that runs the modules and networks.
        calibration_networks: Number of random networks for the calibration; 0 for no calibration. Backends that count
            exactly are never calibrated.
        seed: Seed of the random networks.
        protocol: Measuring protocol of the modules. Defaults to the backend's protocol for operators.
        network_protocol: Measuring protocol of the networks. Defaults to the backend's protocol for calibration
            networks.
        progress: Callback that receives a text, the number of workloads finished in the current round and the number of
            workloads in the current round.

    Returns:
        Table for `LatencyProfiler(model_space, table)`.

    Examples:
        Multiply-adds of the modules of a small space, and of one of its networks:

        >>> from nni.nas.nn.pytorch import LayerChoice, ModelSpace
        >>> from torch import nn
        >>> from nni_proxyless import LatencyProfiler
        >>> from nni_proxyless.latency import make_backend
        >>> class Space(ModelSpace):
        ...     def __init__(self):
        ...         super().__init__()
        ...         small, large = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 3, padding=1)
        ...         self.conv = LayerChoice({"small": small, "large": large}, label="conv")
        ...
        ...     def forward(self, x):
        ...         return self.conv(x)
        >>> space = Space()
        >>> table = measure_model_space(space, (3, 16, 16), make_backend("flops"))
        >>> LatencyProfiler(space, table).profile({"conv": "large"})
        55296.0

    Raises:
        InputError: The number of calibration networks is negative.
        SpaceError: NNI's shape inference fails on the space, or a unit has too many variants and no submodules.
        RunError: The backend failed.
    """
    if calibration_networks < 0:
        raise InputError(f"calibration networks must be a number from 0, got {calibration_networks}")
    generator = np.random.RandomState(seed)  # the type of generator that NNI requires
    modules = {unit.call: (unit.module, unit.call.inputs[0]) for unit in walk(model_space, input_shape)}
    with backend.session():
        reference = None
        if backend.clocked:
            reference = _network(model_space, np.random.RandomState(12345), backend, input_shape)[1]()
        timeline = Timeline()
        table = replace(
            measure_modules(
                modules, backend, space_name(model_space),
                protocol=protocol, reference=reference, timeline=timeline, progress=progress,
            ),
            input_shape=tuple(input_shape),
        )  # fmt: skip
        if calibration_networks == 0 or backend.exact:
            for text in warnings_of(table):
                _log.warning(text)
            return table
        drawn = [_network(model_space, generator, backend, input_shape) for _ in range(calibration_networks)]
        networks = {f"network {i}": load for i, (_, load) in enumerate(drawn)}
        measured = sample_interleaved(
            networks,
            network_protocol or backend.calibration_protocol,
            stage="networks",
            reference=reference,
            clocked=backend.clocked,
            timeline=timeline,
            progress=progress,
        )
    profiler = LatencyProfiler(model_space, table)
    sums = [float(profiler.profile(sample)) for sample, _ in drawn]
    medians = [measured[name].median for name in networks]
    found = fit_calibration(sums, medians)
    rank = rank_correlation([found.scale * total + found.offset_ms for total in sums], medians)
    quality = replace(table.quality or Quality(), rank_correlation=rank, smallest_ms=min(medians))
    table = with_verdict(replace(table, calibration=found, quality=quality))
    for text in warnings_of(table):
        _log.warning(text)
    return table


def _network(
    model_space: ModelSpace, generator: np.random.RandomState, backend: Backend, input_shape: tuple[int, ...]
) -> tuple[dict[str, Any], Any]:
    """Draw a random sample of a space; return the sample and a function that makes its network ready to run."""
    sample: dict[str, Any] = {}
    frozen = model_space.random(sample, random_state=generator)
    with torch.no_grad():
        return sample, backend.loader(frozen, input_shape)
