"""Says which latency table a search would use, and whether it would measure one. Nothing is measured or written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import LatencyTableError, RecipeError
from ..files.resources import cache_folder
from ..files.writing import read_mapping
from ..latency.backends.base import Backend
from ..latency.isolated import MOST_TABLE_PROCESSES, TABLE_PROCESSES
from ..latency.judgement import Verdict, verdict
from ..latency.measure import CALIBRATION_NETWORKS, calibration_count
from ..latency.table import LatencyTable
from ..network.space_spec import SpaceSpec
from .targets import Target, described_by, read_kept


@dataclass(frozen=True)
class TablePlan:
    """The table of a target.

    Attributes:
        table: Table that would be used as it is; `None` if one would be measured.
        text: Description of the table, or of the measurement.
        measurement: How long the measurement takes, and how that is known; empty if nothing is measured.
    """

    table: LatencyTable | None
    text: str
    measurement: str = ""


def plan_table(target: Target, spec: SpaceSpec, *, remeasure: bool = False, accept: bool = False) -> TablePlan:
    """Find the table that a search would use.

    Args:
        target: Hardware target.
        spec: Description of the space.
        remeasure: Whether a kept table is measured again.
        accept: Whether a bad table is used.

    Raises:
        InputError: The target's table or backend would be refused.
    """
    backend = target.make_backend()
    if target.table is not None:
        table = target.latency_table(spec, accept=accept)  # only reads a file
        return TablePlan(table, f"table {target.table}, {_quality(table)}")
    assert backend is not None
    if backend.unit != "ms":
        raise RecipeError(
            f"target '{target.name}': backend {backend.name} counts {backend.unit}, and a target needs ms"
        )
    path = target.kept_table(spec, backend)
    kept = read_kept(path)
    if kept is not None and not remeasure and (accept or verdict(kept) is not Verdict.BAD):
        return TablePlan(kept, f"table of {kept.date} from the cache, {_quality(kept)}: {path}")
    why = "" if kept is None else " anew" if remeasure else ", because the kept table is bad"
    operators = len(spec.distinct_operators())
    networks = calibration_count(spec, backend, CALIBRATION_NETWORKS)
    most = TABLE_PROCESSES if accept else MOST_TABLE_PROCESSES
    processes = f" in {TABLE_PROCESSES}{f' to {most}' if most > TABLE_PROCESSES else ''} processes"
    text = (
        f"to be measured{why} with {backend.name} {backend.version}: {operators} operators and {networks} networks"
        f"{processes if backend.clocked else ''}; kept as {path}"
    )
    return TablePlan(None, text, _measurement(backend, operators))


def _quality(table: LatencyTable) -> str:
    return "published" if table.backend == "published" else verdict(table).name.lower()


def _measurement(backend: Backend, operators: int) -> str:
    """Say how long tables of the same backend took here, scaled to the number of operators."""
    from ..progress import duration

    found = [
        (abs(count - operators), seconds * operators / count, seconds, count, path)
        for path in sorted((cache_folder() / "tables").glob("*.yml"))
        if (known := _recorded(path, backend)) is not None
        for seconds, count in [known]
    ]
    if not found:
        return f"not known: no table has been measured with {backend.name} here, whose duration is recorded"
    _, scaled, seconds, count, path = min(found)
    return f"about {duration(scaled)}, since {path.name} with {count} operators took {duration(seconds)} here"


def _recorded(path: Path, backend: Backend) -> tuple[float, int] | None:
    """Return the duration of a kept table's measurement in seconds, and the number of its operators."""
    described = described_by(path)
    if not described.is_file():
        return None
    try:
        content = read_mapping(described, "description of a measurement", LatencyTableError)
        seconds, settings = content.get("seconds"), content.get("backend")
        same = settings == backend.settings
        if not same or not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or seconds <= 0:
            return None
        return float(seconds), len(SpaceSpec.from_dict(content["space"]).distinct_operators())
    except (LatencyTableError, KeyError, ValueError):
        return None
