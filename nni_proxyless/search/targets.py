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

from ..errors import LatencyTableError, RecipeError, unknown_name
from ..files import check_name
from ..latency import Backend, LatencyTable, make_backend, measure_isolated, this_device
from ..latency.isolated import measure_table_isolated
from ..latency.sampling import Progress
from ..latency.validate import comparable_level
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from ..resources import cache_folder

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
        table: File of the latency table, for a device that is not this machine; `None` if there is a backend.
        backend: Name of the backend that measures on this machine; `None` if there is a table.
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
                not a string, or not exactly one of table and backend is given.
        """
        check_name(name, "the name of a target", RecipeError)
        if not isinstance(content, Mapping):
            raise RecipeError(f"target '{name}' must be a mapping with {', '.join(_KEYS)}, got {content!r}")
        for key in content:
            if key not in _KEYS:
                raise RecipeError(f"target '{name}': " + unknown_name("key", key, _KEYS))
        table, backend = content.get("table"), content.get("backend")
        if (table is None) == (backend is None):
            raise RecipeError(f"target '{name}' needs either 'table', a file, or 'backend', to measure here")
        if table is not None:
            if not isinstance(table, str):
                raise RecipeError(f"target '{name}': table must be a path, got {table!r}")
            return cls(name, table=folder / Path(table).expanduser())
        return cls(name, backend=str(backend), settings={k: v for k, v in content.items() if k in _BACKEND_KEYS[1:]})

    def make_backend(self) -> Backend | None:
        """Create the backend that measures on this machine; `None` if the target is another device.

        Raises:
            InputError: There is no such backend, or it needs a package that is not installed.
        """
        return None if self.backend is None else make_backend(self.backend, **self.settings)

    def latency_table(
        self, spec: SpaceSpec, *, remeasure: bool = False, progress: Progress | None = None
    ) -> LatencyTable:
        """Load the target's latency table for a space, or measure it here and keep it in the cache.

        Args:
            spec: Description of the space.
            remeasure: Whether to measure even if the cache already has a table.
            progress: Progress callback of the measurement; see `measure_table_isolated`.

        Raises:
            LatencyTableError: The file is not a latency table, or its unit is not ms.
            RecipeError: The unit of the backend is not ms.
            InputError: There is no such backend, or it needs a package that is not installed.
        """
        if self.table is not None:
            table = LatencyTable.load(self.table)
            if table.unit != "ms":
                raise LatencyTableError(
                    f"target '{self.name}': table {self.table} is in {table.unit}, and a target needs latencies in ms"
                )
            return table
        backend = self.make_backend()
        assert backend is not None
        if backend.unit != "ms":
            raise RecipeError(
                f"target '{self.name}': backend {backend.name} counts {backend.unit}, and a target needs ms"
            )
        kept = self.kept_table(spec, backend)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{kept}.lock"):  # a second trial must not disturb the measurement, so it waits
            if kept.exists() and not remeasure:
                table = LatencyTable.load(kept)
                _log.info("target %s: table of %s from %s", self.name, table.date, kept)
                return table
            table = measure_table_isolated(spec, backend, progress=progress)
            table.save(kept)
        error = table.calibration.mean_relative_error or 0.0
        _log.info(
            "target %s: measured %d operators with %s on %d thread(s); networks fit within %.1f %%",
            self.name, len(table.operators), backend.name, backend.threads, 100 * error,
        )  # fmt: skip
        return table

    def kept_table(self, spec: SpaceSpec, backend: Backend) -> Path:
        """Path of a measured table in the cache. The file's name covers everything that a latency depends on."""
        device = this_device()
        machine = hashlib.sha256(f"{device}".encode()).hexdigest()[:8]
        settings = hashlib.sha256(json.dumps(backend.settings, sort_keys=True).encode()).hexdigest()[:8]
        name = f"{spec.name}-{spec.content_hash}-{backend.name}-{backend.version}".replace(" ", "_")
        return cache_folder() / "tables" / f"{name}-{settings}-{machine}.yml"

    def measure(self, architecture: Architecture, table: LatencyTable | None = None) -> float | None:
        """Measure the latency of a network in milliseconds; `None` if the target is another device.

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


DEFAULT_TARGETS: dict[str, dict[str, Any]] = {
    "cpu_torch": {"backend": "torch", "threads": 1},
    "cpu_onnxruntime": {"backend": "onnxruntime", "threads": 1},
}
