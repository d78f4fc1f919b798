"""Measuring: operators alone and interleaved, then a few whole networks that calibrate the sum."""

from __future__ import annotations

import datetime
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import nn

from ..architecture import Architecture
from ..operators import Operator, initialise
from ..space_spec import SpaceSpec
from .backends import Backend, Runner
from .device import this_device
from .table import Calibration, LatencyTable, OperatorLatency

Progress = Callable[[str, int, int], None]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Protocol:
    """How long to measure.

    Attributes:
        warmup_s: Each runner runs untimed for about this long before the first round, in seconds.
        settle_s: It runs untimed for about this long, but at least once, before each sample, in seconds: others ran in
            between, and a device runs its network all the time.
        sample_s: A timed sample repeats a short run until about this long, in seconds.
        min_rounds: Rounds over all runners before the spread is looked at.
        max_rounds: Rounds at most.
        max_relative_spread: Enough when the standard error of every median is below this part of it.
    """

    warmup_s: float = 0.01
    settle_s: float = 0.0005
    sample_s: float = 0.002
    min_rounds: int = 12
    max_rounds: int = 40
    max_relative_spread: float = 0.01


# Networks need longer to settle than operators: interleaved with eleven others and run once before each sample, they
# were 6 % (PyTorch) to 14 % (ONNX Runtime) slower than alone.
NETWORK_PROTOCOL = Protocol(settle_s=0.02, sample_s=0.02, min_rounds=10, max_rounds=20, max_relative_spread=0.005)


@dataclass(frozen=True)
class Samples:
    """Milliseconds of one run, one per round, in the order taken."""

    milliseconds: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return float(np.median(self.milliseconds))

    @property
    def spread_ms(self) -> float:
        """Standard error of the median: 1.2533 σ / √n, with σ taken from the interquartile range."""
        low, high = np.percentile(self.milliseconds, (25, 75))
        return float(1.2533 * (high - low) / 1.349 / np.sqrt(len(self.milliseconds)))


def time_interleaved(
    runners: Sequence[Runner], protocol: Protocol | None = None, progress: Progress | None = None
) -> list[Samples]:
    """Time several runners round by round in changing order, so that a slow moment hits all of them alike.

    Args:
        runners: What to run.
        protocol: How long.
        progress: Called with a text, rounds done and rounds at most.

    Returns:
        The samples of each runner, in the order of `runners`.
    """
    protocol = protocol or Protocol()
    once_s = [_time_once(run, protocol.warmup_s) for run in runners]
    settling = [max(1, round(protocol.settle_s / seconds)) for seconds in once_s]
    repeats = [max(1, round(protocol.sample_s / seconds)) for seconds in once_s]
    taken: list[list[float]] = [[] for _ in runners]
    order = list(range(len(runners)))
    shuffler = random.Random(0)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for round_number in range(1, protocol.max_rounds + 1):
            shuffler.shuffle(order)
            for index in order:
                run, count = runners[index], repeats[index]
                for _ in range(settling[index]):
                    run()
                start = time.perf_counter()
                for _ in range(count):
                    run()
                taken[index].append((time.perf_counter() - start) * 1000.0 / count)
            if progress:
                progress("rounds", round_number, protocol.max_rounds)
            if round_number >= protocol.min_rounds and all(
                samples.spread_ms <= protocol.max_relative_spread * samples.median_ms
                for samples in map(_as_samples, taken)
            ):
                break
    finally:
        if collecting:
            gc.enable()
    return [_as_samples(values) for values in taken]


def measure_network(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    backend: Backend,
    protocol: Protocol = NETWORK_PROTOCOL,
) -> Samples:
    """Latency of one whole network on a backend."""
    with backend.session():
        return time_interleaved([backend.prepare(network, input_shape)], protocol)[0]


def measure_table(
    spec: SpaceSpec,
    backend: Backend,
    *,
    calibration_networks: int = 12,
    seed: int = 0,
    protocol: Protocol | None = None,
    network_protocol: Protocol = NETWORK_PROTOCOL,
    progress: Progress | None = None,
) -> LatencyTable:
    """Measure each distinct operator of a space alone, then calibrate on whole networks.

    Args:
        spec: The space.
        backend: What runs the operators.
        calibration_networks: Whole networks, the smallest and the largest of the space among them; 0 for none.
        seed: Draws the other networks.
        protocol: How long to measure operators.
        network_protocol: How long to measure the whole networks.
        progress: Called with a text, steps done and steps at most.

    Returns:
        The calibrated table; its entries are operators, its calibration says how well the sum fits networks.
    """
    operators = spec.distinct_operators()
    with backend.session():
        empty = backend.prepare(nn.Identity(), (1, 1, 1))
        runners = [backend.prepare(_operator_module(op, spec), op.input_shape) for op in operators]
        overhead, *samples = time_interleaved([empty, *runners], protocol, progress)
        del runners
        entries = {
            op: OperatorLatency(
                # A tiny operator can be as cheap as the call; it still costs something.
                max(sample.median_ms - overhead.median_ms, 0.01 * sample.median_ms),
                sample.spread_ms,
                len(sample.milliseconds),
            )
            for op, sample in zip(operators, samples, strict=True)
        }
        table = LatencyTable(
            device=this_device(),
            backend=backend.name,
            backend_version=backend.version,
            dtype=backend.dtype,
            batch=backend.batch,
            threads=backend.threads,
            date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            operators=entries,
            call_overhead_ms=overhead.median_ms,
            space=spec.name,
        )
        if calibration_networks == 0:
            return table
        architectures = calibration_architectures(table, spec, calibration_networks, seed)
        networks = [backend.prepare(a.build(), spec.input_shape) for a in architectures]
        measured = [s.median_ms for s in time_interleaved(networks, network_protocol, progress)]
    sums = [table.sum_ms(a.operators()) for a in architectures]
    return replace(table, calibration=fit_calibration(sums, measured))


def fit_calibration(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration:
    """Fit measured ≈ scale · sum + offset by least squares of relative errors.

    The offset is kept only if it predicts networks that were left out of the fit better than the scale alone does:
    with few networks an offset often fits noise, and would mislead at the fast end of the space.

    Args:
        sums_ms: Plain sums of operators of each network, in milliseconds.
        measured_ms: Measured latencies of the same networks, in milliseconds.

    Returns:
        The fit, with its mean relative error on the networks it was fitted to.
    """
    x, y = np.asarray(sums_ms, dtype=np.float64), np.asarray(measured_ms, dtype=np.float64)
    scale, offset = _fit(x, y, with_offset=False)
    if len(x) >= 4 and np.ptp(x) > 0:
        slope, constant = _fit(x, y, with_offset=True)
        stays_positive = slope > 0 and slope * x.min() + constant > 0
        if stays_positive and _left_out_error(x, y, True) < 0.9 * _left_out_error(x, y, False):
            scale, offset = slope, constant
    error = float(np.mean(np.abs(scale * x + offset - y) / y))
    return Calibration(scale, offset, len(x), error)


def _fit(x: FloatArray, y: FloatArray, with_offset: bool) -> tuple[float, float]:
    """Minimise Σ ((scale · x + offset - y) / y)²."""
    columns = [x / y, 1.0 / y] if with_offset else [x / y]
    solution, *_ = np.linalg.lstsq(np.stack(columns, axis=1), np.ones_like(y), rcond=None)
    return float(solution[0]), float(solution[1]) if with_offset else 0.0


def _left_out_error(x: FloatArray, y: FloatArray, with_offset: bool) -> float:
    """Mean relative error of each network under the fit to all others."""
    errors = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        scale, offset = _fit(x[others], y[others], with_offset)
        errors.append(abs(scale * x[i] + offset - y[i]) / y[i])
    return float(np.mean(errors))


def random_architecture(spec: SpaceSpec, generator: random.Random) -> Architecture:
    """One architecture, each candidate of a layer equally likely."""
    return Architecture.of_space(spec, {layer.label: generator.choice(layer.names) for layer in spec.layers})


def calibration_architectures(table: LatencyTable, spec: SpaceSpec, count: int, seed: int) -> list[Architecture]:
    """The networks that calibrate a table: the fastest and the slowest by its entries, and random ones."""
    costs = table.costs(spec)
    ends = [
        Architecture.of_space(
            spec,
            {
                label: costs.candidates[label][pick(range(len(values)), key=values.__getitem__)]
                for label, values in costs.layers_ms.items()
            },
        )
        for pick in (min, max)
    ]
    generator = random.Random(f"calibration {seed}")
    drawn = [random_architecture(spec, generator) for _ in range(max(0, count - 2))]
    return (ends + drawn)[:count]


def _operator_module(operator: Operator, spec: SpaceSpec) -> nn.Module:
    module = operator.build(spec.norm)
    initialise(module)
    return module


def _time_once(run: Runner, warmup_s: float) -> float:
    """Seconds that one run takes, roughly, after a warm-up."""
    run()
    start, runs = time.perf_counter(), 0
    while runs < 2 or time.perf_counter() - start < warmup_s:
        run()
        runs += 1
    return (time.perf_counter() - start) / runs


def _as_samples(values: Sequence[float]) -> Samples:
    return Samples(tuple(values))
