"""Validation of a latency table on networks that were not used to calibrate it."""

from __future__ import annotations

import contextlib
import random
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError, LatencyTableError, MissingDependencyError
from ..files.writing import write_atomically, write_csv
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .arrays import FloatArray, spearman
from .backends.base import Backend
from .backends.by_name import BACKENDS, make_backend
from .isolated import measure_networks_isolated
from .random_architectures import draw_architectures
from .sampling import Progress
from .table import LatencyTable

# More processes than for a table, because the measurement that judges a table should be more accurate than the table.
PROCESSES = 5
_WITH_DTYPE = ("onnxruntime", "openvino")  # backends with a choice of number format


@dataclass(frozen=True)
class Validation:
    """Predicted and measured latencies of `n` networks.

    Latencies are in milliseconds, or in the table's unit if the table holds FLOPs or parameters.

    Attributes:
        architectures: Measured networks.
        predicted_ms: Latencies predicted by the table, shape (n,).
        measured_ms: Median latencies corrected for the slowdown of the machine (`sampling.py`), shape (n,). If
            `comparable_level` finds the measurement comparable with the table's, the slowdown is relative to the time
            when the table was measured. Otherwise it is relative to the undisturbed machine of today.
        raw_ms: Median latencies without that correction, shape (n,).
        machine: Latency of the reference network during the validation, including disturbances, divided by its latency
            when the table was measured; `None` if the two are not comparable.
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
        """Mean of the relative errors; positive if the table overestimates."""
        return float(np.mean(self.relative_errors))

    @property
    def spearman(self) -> float:
        return spearman(self.predicted_ms, self.measured_ms)

    @property
    def kendall(self) -> float:
        if np.ptp(self.predicted_ms) == 0 or np.ptp(self.measured_ms) == 0:
            return 0.0
        from scipy.stats import kendalltau  # late, as in `arrays.spearman`

        return float(kendalltau(self.predicted_ms, self.measured_ms)[0])

    def save_csv(self, path: Path) -> Path:
        """Write a CSV file with one row per network.

        The columns are the candidate of each layer, `predicted_latency_ms`, `measured_latency_ms` and
        `clock_latency_ms` (the latency without the correction for slowdowns).
        """
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
    processes: int = PROCESSES,
    progress: Progress | None = None,
) -> Validation:
    """Measure random networks that did not calibrate the table, and compare them with the table's predictions.

    The networks are measured interleaved, in several fresh processes (`measure_networks_isolated`).

    Args:
        table: Table to validate.
        spec: Search space of the networks.
        networks: Number of networks, at least 2.
        backend: Backend that runs the networks. Defaults to the backend that measured the table.
        seed: Seed of the random networks.
        processes: Number of fresh processes; see `measure_networks_isolated`.
        progress: Progress callback of the measurement; see `measure_networks_isolated`.

    Raises:
        InputError: `networks` is less than 2, the space has too few networks left, or `table_backend` cannot recreate
            the table's backend.
        LatencyTableError: The backend measures in another unit than the table's.
        MissingOperatorError: The table lacks operators of the space.
        RunError: The measurement failed.
    """
    if networks < 2:
        raise InputError(f"networks must be at least 2, got {networks}")
    backend = _comparable_backend(table, backend)
    table.costs(spec)  # refuses a table that lacks operators
    architectures = draw_architectures(
        spec, networks, random.Random(f"validation {seed}"), table.calibration.architectures
    )
    return validate_architectures(table, architectures, backend=backend, processes=processes, progress=progress)


def validate_architectures(
    table: LatencyTable,
    architectures: Sequence[Architecture],
    *,
    backend: Backend | None = None,
    processes: int = PROCESSES,
    progress: Progress | None = None,
) -> Validation:
    """Measure given networks of one space, and compare them with the table's predictions; see `validate`.

    Args:
        table: Table to validate.
        architectures: Networks, at least one.
        backend: Backend that runs the networks. Defaults to the backend that measured the table.
        processes: Number of fresh processes; see `measure_networks_isolated`.
        progress: Progress callback of the measurement; see `measure_networks_isolated`.

    Raises:
        InputError: `table_backend` cannot recreate the table's backend.
        LatencyTableError: The backend measures in another unit than the table's.
        MissingOperatorError: The table lacks operators of the space.
        RunError: The measurement failed.
    """
    backend = _comparable_backend(table, backend)
    spec = architectures[0].require_spec()
    costs = table.costs(spec)
    level = comparable_level(table, backend, spec)
    samples = measure_networks_isolated(
        architectures, backend, processes=processes, reference_ms=level, progress=progress
    )
    return Validation(
        architectures,
        np.array([costs.of(a.choices) for a in architectures]),
        np.array([s.median for s in samples]),
        np.array([np.median(s.raw) for s in samples]),
        None if level is None else float(np.median([np.median(s.slowdown) for s in samples])),
    )


def _comparable_backend(table: LatencyTable, backend: Backend | None) -> Backend:
    backend = backend or table_backend(table)
    if backend.unit != table.unit:
        raise LatencyTableError(f"the table is in {table.unit}, but backend {backend.name} measures {backend.unit}")
    return backend


def comparable_level(table: LatencyTable, backend: Backend, space: SpaceSpec | str) -> float | None:
    """Return the table's latency of the reference network, if a new measurement is comparable with the table's.

    Args:
        table: Latency table.
        backend: Backend of the new measurement.
        space: Space whose networks are to be measured, or its name.

    Returns:
        Latency of the reference network in milliseconds when the table was measured. `None` if the table was measured
        on another device, with another backend or other settings, or for another space, or if it has no reference.
    """
    same = (backend.device, backend.name, backend.version, backend.dtype, backend.batch, backend.threads) == (
        table.device, table.backend, table.backend_version, table.dtype, table.batch, table.threads,
    )  # fmt: skip
    name = space if isinstance(space, str) else space.name
    return table.reference_ms if same and table.space == name else None


def table_backend(table: LatencyTable) -> Backend:
    """Create the backend with which a table was measured.

    A shell command stored in a table is never run automatically, because the file may come from an untrusted source.

    Raises:
        InputError: The table was measured by a command, or its backend cannot run networks.
        MissingDependencyError: The backend needs a package that is not installed.
    """
    if table.backend == "command":
        raise InputError(
            "the table was measured with its author's command, which is not run automatically; to run it, give "
            f"--backend command --command {shlex.quote(table.command or '')}"
            f"{f' --tool {table.tool}' if table.tool else ''}, and the other settings as for `measure`"
        )
    if table.backend not in BACKENDS:
        raise InputError(
            f"the table's backend is '{table.backend}', which cannot run a network; choose one that can with --backend "
            f"({', '.join(BACKENDS)})"
        )
    settings: dict[str, Any] = {"threads": table.threads or 1, "batch": table.batch or 1}
    if table.backend in _WITH_DTYPE:
        settings["dtype"] = table.dtype
    if table.backend == "torch" and table.device_type is not None:
        settings["device"] = table.device_type
    return make_backend(table.backend, **settings)


def usable_backend(
    tables: Sequence[LatencyTable], names: Sequence[str], dtype: str, batch: int | None = 1
) -> tuple[Backend, LatencyTable | None]:
    """Create the backend of the first table that was measured with one of these backends.

    Tables of other devices are passed over, also those of backends that are not installed: what they predict cannot be
    compared with a measurement on this machine. So are tables of another number of images at a time.

    Args:
        tables: Latency tables.
        names: Names of the backends.
        dtype: Number format.
        batch: Number of images in a batch; `None` if tables of any number will do.

    Returns:
        The backend and the table. If there is no such table, the first of these backends, with its default settings,
        and `None`.

    Raises:
        MissingDependencyError: There is no such table, and the first backend is not installed.
    """
    for table in tables:
        same = (table.dtype, table.device_type) == (dtype, None) and batch in (None, table.batch or 1)
        if table.backend in names and same:
            with contextlib.suppress(MissingDependencyError):
                backend = table_backend(table)
                if backend.device == table.device:
                    return backend, table
    settings = {"dtype": dtype} if names[0] in _WITH_DTYPE else {}
    return make_backend(names[0], batch=batch or 1, **settings), None


def plot(validation: Validation, title: str, path: Path) -> Path:
    """Write a scatter plot of measured against predicted latencies, with the identity line, as a PNG file.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as reason:
        raise MissingDependencyError.of(reason, "a plot", "matplotlib", "plot") from reason
    figure = Figure(figsize=(5.2, 5.0), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    both = np.concatenate([validation.predicted_ms, validation.measured_ms])
    margin = 0.05 * float(np.ptp(both)) or 0.05 * float(both.max())
    ends = [float(both.min()) - margin, float(both.max()) + margin]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="predicted = measured")
    axes.scatter(validation.predicted_ms, validation.measured_ms, s=18, color="tab:blue", label="networks")
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel="predicted latency [ms]", ylabel="measured latency [ms]")
    title = title.replace("$", r"\$")  # names of spaces and devices are not formulas
    axes.set_title(
        f"{title}\nmean error {100 * validation.mean_error:.1f} %, Spearman {validation.spearman:.3f}", fontsize=9
    )
    axes.legend(frameon=False, fontsize=8)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for the character
        return write_atomically(path, lambda temporary: figure.savefig(temporary, format="png"))
