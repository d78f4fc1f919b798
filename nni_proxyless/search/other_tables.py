"""Latency tables of the further targets that have a budget, in one file of a search's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import LatencyTableError
from ..files.reading import read_mapping
from ..files.writing import write_yaml
from ..latency.table import LatencyTable


def save_tables(path: Path, tables: Mapping[str, LatencyTable]) -> None:
    """Write tables by the name of their target. If there are none, remove an earlier file."""
    if tables:
        write_yaml(path, {name: table.to_dict() for name, table in tables.items()})
    else:
        path.unlink(missing_ok=True)


def load_tables(path: Path) -> dict[str, LatencyTable]:
    """Read the tables that `save_tables` wrote.

    Raises:
        LatencyTableError: The file is missing or damaged.
    """
    content = read_mapping(path, "latency tables", LatencyTableError)
    return {str(name): LatencyTable.from_dict(table, f"{path}: {name}") for name, table in content.items()}
