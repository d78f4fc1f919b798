"""How well a table predicts whole networks that it has never seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from ..errors import InputError, LatencyTableError, MissingDependencyError
from ..files import write_atomically, write_csv
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .arrays import FloatArray, spearman
from .backends.base import Backend
from .backends.by_name import BACKENDS, make_backend
from .isolated import measure_networks_isolated
from .measure import draw_architectures
from .sampling import Progress
from .table import LatencyTable

# More than a table's: what a table is judged by should be better than it.
PROCESSES = 5


@dataclass(frozen=True)
class Validation:
    """Predicted against measured latencies of `n` networks.

    Attributes:
        architectures: The networks.
        predicted_ms: By the table, shape (n,).
        measured_ms: Medians with the machine's slowness taken off (`sampling.py`), shape (n,). Measured on the
            table's own device, the slowness is that against the time when the table was measured.
        raw_ms: Medians by the clock, shape (n,).
        machine: What the reference network takes now, disturbances included, over what it took when the table was
            measured; `None` where that cannot be said.
    """

    architectures: Sequence[Architecture]
    predicted_ms: FloatArray
    measured_ms: FloatArray
    raw_ms: FloatArray
    machine: float | None = None

    @property
    def relative_errors(self) -> FloatArray:
        """(predicted - measured) / measured, shape (n,)."""
        return np.asarray((self.predicted_ms - self.measured_ms) / self.measured_ms)

    @property
    def mean_error(self) -> float:
        return float(np.mean(np.abs(self.relative_errors)))

    @property
    def worst_error(self) -> float:
        return float(np.max(np.abs(self.relative_errors)))

    @property
    def bias(self) -> float:
        """Mean of the relative errors; above 0 where the table predicts too much."""
        return float(np.mean(self.relative_errors))

    @property
    def spearman(self) -> float:
        return spearman(self.predicted_ms, self.measured_ms)

    @property
    def kendall(self) -> float:
        if np.ptp(self.predicted_ms) == 0 or np.ptp(self.measured_ms) == 0:
            return 0.0
        return float(kendalltau(self.predicted_ms, self.measured_ms)[0])

    def save_csv(self, path: Path) -> Path:
        """A row for each network: its candidates by layer, `predicted_latency_ms`, `measured_latency_ms`."""
        rows: list[dict[str, Any]] = [
            {
                **architecture.choices,
                "predicted_latency_ms": predicted,
                "measured_latency_ms": measured,
                "clock_latency_ms": raw,
            }
            for architecture, predicted, measured, raw in zip(
                self.architectures, self.predicted_ms, self.measured_ms, self.raw_ms, strict=True
            )
        ]
        return write_csv(path, list(rows[0]), rows)


def validate(
    table: LatencyTable,
    spec: SpaceSpec,
    networks: int,
    *,
    backend: Backend | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Validation:
    """Measure random networks that did not calibrate the table, in one interleaved run of a fresh process.

    Args:
        table: The table.
        spec: The space.
        networks: How many networks.
        backend: What runs them; the one that the table names if not given.
        seed: Draws the networks.
        progress: Passed on to the measurement.

    Raises:
        InputError: The space has not that many networks left, or the table's backend needs to be given.
        MissingOperatorError: The table lacks operators of the space.
        RunError: The measurement failed.
    """
    if networks < 2:
        raise InputError(f"networks must be at least 2, got {networks}")
    backend = backend or table_backend(table)
    if backend.unit != table.unit:
        raise LatencyTableError(f"the table is in {table.unit}, but backend {backend.name} measures {backend.unit}")
    costs = table.costs(spec)
    architectures = draw_architectures(
        spec, networks, random.Random(f"validation {seed}"), table.calibration.architectures
    )
    level = comparable_level(table, backend, spec)
    samples = measure_networks_isolated(
        architectures, backend, processes=PROCESSES, reference_ms=level, progress=progress
    )
    return Validation(
        architectures,
        np.array([costs.of(a.choices) for a in architectures]),
        np.array([s.median for s in samples]),
        np.array([np.median(s.raw) for s in samples]),
        None if level is None else float(np.median([np.median(s.slowdown) for s in samples])),
    )


def comparable_level(table: LatencyTable, backend: Backend, spec: SpaceSpec) -> float | None:
    """What the reference network took when a table was measured, if a measurement here is comparable with it.

    Args:
        table: The table.
        backend: What is to measure.
        spec: The space whose networks are to be measured.

    Returns:
        Milliseconds; none if the table was measured on another device, in another way or for another space.
    """
    same = (backend.device, backend.name, backend.version, backend.dtype, backend.batch, backend.threads) == (
        table.device, table.backend, table.backend_version, table.dtype, table.batch, table.threads,
    )  # fmt: skip
    return table.reference_ms if same and table.space == spec.name else None


def table_backend(table: LatencyTable) -> Backend:
    """The backend that a table was measured with.

    A command that stands in a file is never run unasked: the file may come from anybody.

    Raises:
        InputError: The table does not say how it was measured here, or by a command.
        MissingDependencyError: The backend needs a package that is not installed.
    """
    if table.backend == "command":
        raise InputError(
            "the table was measured with a command of its maker's, which is not run unasked; to run it, give "
            f"--backend command --command '{table.command}'"
        )
    if table.backend not in BACKENDS:
        raise InputError(
            f"the table's backend is '{table.backend}', which cannot run a network; say what shall with --backend "
            f"({', '.join(BACKENDS)})"
        )
    settings: dict[str, Any] = {"threads": table.threads or 1, "batch": table.batch or 1}
    if table.backend == "onnxruntime":
        settings["dtype"] = table.dtype
    if table.backend == "torch" and table.device_type is not None:
        settings["device"] = table.device_type
    return make_backend(table.backend, **settings)


def plot(validation: Validation, title: str, path: Path) -> Path:
    """Scatter of measured over predicted latencies with the identity line.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as reason:
        raise MissingDependencyError("a plot needs matplotlib: pip install 'nni-proxyless[plot]'") from reason
    figure = Figure(figsize=(5.2, 5.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    both = np.concatenate([validation.predicted_ms, validation.measured_ms])
    margin = 0.05 * float(np.ptp(both)) or 0.05 * float(both.max())
    ends = [float(both.min()) - margin, float(both.max()) + margin]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="predicted = measured")
    axes.scatter(validation.predicted_ms, validation.measured_ms, s=18, color="tab:blue", label="networks")
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="predicted latency [ms]", ylabel="measured latency [ms]")
    axes.set_title(
        f"{title}\nmean error {100 * validation.mean_error:.1f} %, Spearman {validation.spearman:.3f}", fontsize=9
    )
    axes.legend(frameon=False, fontsize=8)
    return write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))
