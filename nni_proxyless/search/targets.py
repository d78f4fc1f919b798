"""Hardware targets: the source of a target's latency table, and the measurement of networks on the target."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import filelock

from ..errors import LatencyTableError, ProxylessError, RecipeError, RunError
from ..files.resources import cache_folder
from ..files.writing import write_json
from ..latency.backends.base import Backend
from ..latency.backends.by_name import make_backend
from ..latency.device import this_device
from ..latency.isolated import MOST_TABLE_PROCESSES, TABLE_PROCESSES, measure_isolated, measure_table_isolated
from ..latency.judgement import Verdict, advice, unknown_backend, verdict, warnings_of, why_worse
from ..latency.sampling import Progress
from ..latency.table import LatencyTable
from ..latency.validate import comparable_level
from ..network.architecture import Architecture
from ..network.space_spec import SpaceSpec
from .target_description import DEFAULT_TARGETS as DEFAULT_TARGETS
from .target_description import TargetDescription

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target(TargetDescription):
    """Device for which a search optimises the latency, with its table and its measurements."""

    def make_backend(self) -> Backend | None:
        """Create the backend that measures; `None` if the target has only a table.

        Raises:
            InputError: There is no such backend, or it needs a package that is not installed.
        """
        return None if self.backend is None else make_backend(self.backend, **self.settings)

    def given_table(self, *, accept: bool = False) -> LatencyTable | None:
        """Load the table that the target names, and check the settings of its backend.

        Args:
            accept: Whether to use a table whatever its quality.

        Returns:
            The table; `None` if the target names none, because the backend measures it.

        Raises:
            LatencyTableError: The file is not a latency table, its unit is not ms, or the table is bad.
            RecipeError: The unit of the backend is not ms.
            InputError: There is no such backend, or it needs a package that is not installed.
        """
        backend = self.make_backend()
        if backend is not None and backend.unit != "ms":
            raise RecipeError(
                f"target '{self.name}': backend {backend.name} counts {backend.unit}, and a target needs ms"
            )
        if self.table is None:
            return None
        table = LatencyTable.load(self.table)
        if table.unit != "ms":
            raise LatencyTableError(
                f"target '{self.name}': table {self.table} is in {table.unit}, and a target needs latencies in ms"
            )
        if not accept and not (table.quality and table.quality.accepted):
            self._refuse_bad(table, LatencyTableError)
        for text in unknown_backend(table):
            _log.warning("target %s: table %s: %s", self.name, self.table, text)
        return table

    def latency_table(
        self, spec: SpaceSpec, *, remeasure: bool = False, accept: bool = False, progress: Progress | None = None
    ) -> LatencyTable:
        """Load the target's latency table for a space, or measure it here and keep it in the cache.

        A kept table is not replaced by a worse one (`judgement.why_worse`).

        Args:
            spec: Description of the space.
            remeasure: Whether to measure even if the cache already has a table.
            accept: Whether to use a table whatever its quality. The measurement is then not extended to get a better
                one.
            progress: Progress callback of the measurement; see `measure_table_isolated`.

        Raises:
            LatencyTableError: The file is not a latency table, its unit is not ms, or the table is bad.
            RecipeError: The unit of the backend is not ms.
            InputError: There is no such backend, or it needs a package that is not installed.
            RunError: The measurement failed, or the measured table is bad.
        """
        given = self.given_table(accept=accept)
        if given is not None:
            return given
        backend = self.make_backend()
        assert backend is not None
        path = self.kept_table(spec, backend)
        path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{path}.lock"):  # a second trial must not disturb the measurement, so it waits
            kept = read_kept(path)
            if kept is not None and not remeasure and (accept or verdict(kept) is not Verdict.BAD):
                _log.info("target %s: table of %s from %s", self.name, kept.date, path)
                return kept
            most = TABLE_PROCESSES if accept else MOST_TABLE_PROCESSES
            started = time.monotonic()
            table = measure_table_isolated(spec, backend, most_processes=most, progress=progress)
            seconds = time.monotonic() - started
            if kept is not None and (reason := why_worse(table, kept)):
                _log.warning("target %s: %s", self.name, reason)
                _log.warning("target %s: the better table of %s is used instead: %s", self.name, kept.date, path)
                table = kept
            if not accept:
                self._refuse_bad(table, RunError)
            if table is not kept:
                table.save(path)
                described = {"space": spec.to_dict(), "backend": backend.settings}
                write_json(described_by(path), {**described, "seconds": round(seconds, 1)})
        _log.info(
            "target %s: %d operators measured with %s on %d thread(s)%s",
            self.name, len(table.operators), backend.name, backend.threads, table.calibration.error_text,
        )  # fmt: skip
        return table

    def _refuse_bad(self, table: LatencyTable, error: type[ProxylessError]) -> None:
        if verdict(table) is Verdict.BAD:
            raise error(
                f"target '{self.name}': {warnings_of(table)[0]}. What to try: {advice(table)}. To use it anyway, "
                "set accept_tables: true in the recipe"
            )

    def kept_table(self, spec: SpaceSpec, backend: Backend) -> Path:
        """Path of a measured table in the cache. The file's name states everything that a latency depends on."""
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
