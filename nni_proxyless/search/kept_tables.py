"""Latency tables in the cache: those that searches have measured on this machine and kept."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import filelock

from ..errors import InputError, LatencyTableError, RunError
from ..files.resources import cache_folder
from ..files.writing import aligned, read_mapping
from ..latency.backends.by_name import make_backend
from ..latency.device import this_device
from ..latency.isolated import measure_table_isolated
from ..latency.judgement import Verdict, verdict, warnings_of, why_worse
from ..latency.sampling import Progress
from ..latency.table import LatencyTable
from ..network.space_spec import SpaceSpec
from .targets import described_by


@dataclass(frozen=True)
class KeptTable:
    """A table in the cache.

    Attributes:
        path: File of the table.
        table: Table; `None` if the file cannot be read.
    """

    path: Path
    table: LatencyTable | None

    @property
    def not_measurable(self) -> str | None:
        """Why the table cannot be measured again; `None` if it can."""
        if self.table is None:
            return "its file cannot be read: delete it"
        if self.table.backend != "command" and self.table.device != this_device():
            return "it is of another machine"
        if not described_by(self.path).is_file():
            return "version 0.1 did not record its space"
        return None


def kept_tables() -> list[KeptTable]:
    """List the tables in the cache by the names of their files.

    Raises:
        InputError: The cache is a file.
    """
    folder = cache_folder()
    if folder.is_file():
        raise InputError(f"the cache folder {folder} is a file, not a folder; set NNI_PROXYLESS_CACHE to a folder")
    found = []
    for path in sorted((folder / "tables").glob("*.yml")):
        try:
            table: LatencyTable | None = LatencyTable.load(path)
        except LatencyTableError:
            table = None
        found.append(KeptTable(path, table))
    return found


def listing(tables: list[KeptTable]) -> list[str]:
    """Describe tables as the lines of a text table, or say that there are none."""
    rows, place = listing_rows(tables)
    return [*(aligned(rows) if rows else []), place]


def listing_rows(tables: list[KeptTable]) -> tuple[list[list[str]], str]:
    """Describe tables as rows, the heading first, and say in a line where they are, or that there are none."""
    if not tables:
        return [], f"no tables in {cache_folder() / 'tables'}"
    rows = [["space", "backend", "format", "threads", "quality", "error", "age", "file"]]
    rows += [_row(one) for one in tables]
    return rows, f"folder: {tables[0].path.parent}"


def _row(one: KeptTable) -> list[str]:
    table = one.table
    if table is None:
        return ["?", "?", "?", "?", "cannot be read", "", "", one.path.name]
    error = table.calibration.mean_relative_error
    return [
        table.space or "?",
        f"{table.backend} {table.backend_version}",
        table.dtype,
        str(table.threads),
        verdict(table).name.lower(),
        "" if error is None else f"{100 * error:.1f} %",
        _age(table.date),
        one.path.name,
    ]


def _age(date: str) -> str:
    try:
        passed = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(date)
    except (TypeError, ValueError):
        return "?"
    hours = passed.total_seconds() / 3600
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def remeasure(one: KeptTable, *, progress: Progress | None = None) -> str:
    """Measure a table again, and replace it unless the new one is bad, or worse.

    Args:
        one: Table that can be measured (`KeptTable.not_measurable`).
        progress: Progress callback of the measurement; see `measure_table_isolated`.

    Returns:
        A description of what happened to the table.

    """
    assert one.table is not None
    with filelock.FileLock(f"{one.path}.lock"):
        try:
            content = read_mapping(described_by(one.path), "description of a measurement", LatencyTableError)
            if not {"space", "backend"} <= content.keys():
                raise LatencyTableError(f"{described_by(one.path)} lacks 'space' or 'backend'")
            table = measure_table_isolated(
                SpaceSpec.from_dict(content["space"]), make_backend(**content["backend"]), progress=progress
            )
        except (InputError, RunError) as error:
            return f"the old table is kept: {error}"
        reason = warnings_of(table)[0] if verdict(table) is Verdict.BAD else why_worse(table, one.table)
        if reason is not None:
            return f"the old table is kept: {reason}"
        table.save(one.path)
        return "measured"
