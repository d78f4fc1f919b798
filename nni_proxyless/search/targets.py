"""Hardware targets: the source of a target's latency table, and the measurement of networks on the target."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock

from ..errors import LatencyTableError, ProxylessError, RecipeError, RunError, shown, unknown_name
from ..files.reading import user_path
from ..files.resources import cache_folder
from ..files.writing import check_name, write_json
from ..latency import Backend, LatencyTable, make_backend, measure_isolated, this_device
from ..latency.isolated import MOST_TABLE_PROCESSES, TABLE_PROCESSES, measure_table_isolated
from ..latency.judgement import Verdict, advice, verdict, warnings_of, why_worse
from ..latency.sampling import Progress
from ..latency.validate import comparable_level
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec

_log = logging.getLogger(__name__)
_BACKEND_KEYS = (
    "backend", "threads", "batch", "dtype", "device", "command", "tool", "pattern", "unit", "timeout_s", "retries",
)  # fmt: skip
_KEYS = ("table", *_BACKEND_KEYS)


@dataclass(frozen=True)
class Target:
    """Device for which a search optimises the latency.

    Attributes:
        name: Name of the target in recipes and results.
        table: File of the latency table that predicts latencies; `None` if the backend measures the table.
        backend: Name of the backend that measures; `None` if nothing is measured. With a table, it measures only the
            networks that the search finds.
        settings: Settings of the backend, as `make_backend` takes them.
    """

    name: str
    table: Path | None = None
    backend: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def parse(cls, name: str, content: object, folder: Path) -> Target:
        """Check the description of a target in a recipe, and create the target.

        Args:
            name: Name of the target.
            content: Mapping with `table`, or with `backend` and its settings, such as `threads` and `command`.
            folder: Folder that a relative path starts from.

        Raises:
            RecipeError: The name could lead out of a folder, the description is no mapping, a key is unknown, a path is
                not a string, neither table nor backend is given, or a setting of the backend is given without it.
        """
        check_name(name, "the name of a target", RecipeError)
        if not isinstance(content, Mapping):
            raise RecipeError(f"target '{name}' must be a mapping with {', '.join(_KEYS)}, got {shown(content)}")
        for key in content:
            if key not in _KEYS:
                raise RecipeError(f"target '{name}': " + unknown_name("key", key, _KEYS))
        table, backend = content.get("table"), content.get("backend")
        if table is None and backend is None:
            raise RecipeError(
                f"target '{name}' needs 'table', a file that predicts latencies, or 'backend', which measures, or both"
            )
        if table is not None and not (isinstance(table, str) and table):
            raise RecipeError(f"target '{name}': table must be a path, got {shown(table)}")
        if backend is not None and not isinstance(backend, str):
            raise RecipeError(f"target '{name}': backend must be the name of a backend, got {shown(backend)}")
        settings = {k: v for k, v in content.items() if k in _BACKEND_KEYS[1:]}
        if backend is None and settings:
            raise RecipeError(f"target '{name}': {', '.join(settings)} needs 'backend', the name of what measures")
        return cls(
            name,
            table=None if table is None else folder / user_path(table, "latency table", RecipeError),
            backend=backend,
            settings=settings,
        )

    def make_backend(self) -> Backend | None:
        """Create the backend that measures; `None` if the target has only a table.

        Raises:
            InputError: There is no such backend, or it needs a package that is not installed.
        """
        return None if self.backend is None else make_backend(self.backend, **self.settings)

    def latency_table(
        self, spec: SpaceSpec, *, remeasure: bool = False, accept: bool = False, progress: Progress | None = None
    ) -> LatencyTable:
        """Load the target's latency table for a space, or measure it here and keep it in the cache.

        A kept table is not replaced by a worse one (`judgement.why_worse`).

        Args:
            spec: Description of the space.
            remeasure: Whether to measure even if the cache already has a table.
            accept: Whether to use a table whatever its quality. The measurement is then not prolonged for a better one.
            progress: Progress callback of the measurement; see `measure_table_isolated`.

        Raises:
            LatencyTableError: The file is not a latency table, its unit is not ms, or the table is bad.
            RecipeError: The unit of the backend is not ms.
            InputError: There is no such backend, or it needs a package that is not installed.
            RunError: The measurement failed, or the measured table is bad.
        """
        backend = self.make_backend()
        if backend is not None and backend.unit != "ms":
            raise RecipeError(
                f"target '{self.name}': backend {backend.name} counts {backend.unit}, and a target needs ms"
            )
        if self.table is not None:
            table = LatencyTable.load(self.table)
            if table.unit != "ms":
                raise LatencyTableError(
                    f"target '{self.name}': table {self.table} is in {table.unit}, and a target needs latencies in ms"
                )
            if not accept and not (table.quality and table.quality.accepted):
                self._refuse_bad(table, LatencyTableError)
            return table
        assert backend is not None
        path = self.kept_table(spec, backend)
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):  # a second trial must not disturb the measurement, so it waits
            kept = read_kept(path)
            if kept is not None and not remeasure and (accept or verdict(kept) is not Verdict.BAD):
                _log.info("target %s: table of %s from %s", self.name, kept.date, path)
                return kept
            most = TABLE_PROCESSES if accept else MOST_TABLE_PROCESSES
            table = measure_table_isolated(spec, backend, most_processes=most, progress=progress)
            if kept is not None and (reason := why_worse(table, kept)):
                _log.warning("target %s: %s", self.name, reason)
                _log.warning("target %s: the better table of %s is used instead: %s", self.name, kept.date, path)
                table = kept
            if not accept:
                self._refuse_bad(table, RunError)
            if table is not kept:
                table.save(path)
                write_json(described_by(path), {"space": spec.to_dict(), "backend": backend.settings})
        error = table.calibration.mean_relative_error or 0.0
        _log.info(
            "target %s: %d operators measured with %s on %d thread(s); networks fit within %.1f %%",
            self.name, len(table.operators), backend.name, backend.threads, 100 * error,
        )  # fmt: skip
        return table

    def _refuse_bad(self, table: LatencyTable, error: type[ProxylessError]) -> None:
        if verdict(table) is Verdict.BAD:
            raise error(
                f"target '{self.name}': {warnings_of(table)[0]}. What to try: {advice(table)}. To use it all the same, "
                "set accept_tables: true in the recipe"
            )

    def kept_table(self, spec: SpaceSpec, backend: Backend) -> Path:
        """Path of a measured table in the cache. The file's name covers everything that a latency depends on."""
        device = this_device()
        machine = hashlib.sha256(f"{device}".encode()).hexdigest()[:8]
        settings = hashlib.sha256(json.dumps(backend.settings, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{spec.name}-{spec.content_hash}-{backend.name}-{backend.version}".replace(" ", "_")
        return cache_folder() / "tables" / f"{name}-{settings}-{machine}.yml"

    def measure(self, architecture: Architecture, table: LatencyTable | None = None) -> float | None:
        """Measure the latency of a network in milliseconds; `None` if the target has only a table.

        Args:
            architecture: Architecture of the network.
            table: Latency table of the target. With it, the latency is corrected for the slowdown of the machine since
                the table was measured, which the reference network shows. Shared machines drift by 5 to 15 % within
                minutes.
        """
        backend = self.make_backend()
        if backend is None:
            return None
        level = None if table is None else comparable_level(table, backend, architecture.require_spec())
        return measure_isolated(architecture, backend, reference_ms=level)


def read_kept(path: Path) -> LatencyTable | None:
    """Read a kept table; `None` if there is none, or if its file cannot be read, which is logged."""
    if not path.exists():
        return None
    try:
        return LatencyTable.load(path)
    except LatencyTableError as reason:
        _log.warning("%s; the table is measured again", reason)
        return None


def described_by(path: Path) -> Path:
    """Path of the file that describes how a kept table was measured: its space and the settings of its backend."""
    return path.with_suffix(".json")


DEFAULT_TARGETS: dict[str, dict[str, Any]] = {
    "cpu_torch": {"backend": "torch", "threads": 1},
    "cpu_onnxruntime": {"backend": "onnxruntime", "threads": 1},
}
