"""Predicting: many architectures at once, and distributions over architectures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..errors import InputError, LatencyTableError, unknown_name
from ..files import write_text
from ..network.space_spec import SpaceSpec, shipped_spaces
from .architectures_file import ArchitectureFile
from .arrays import FloatArray
from .costs import SpaceCosts
from .table import COST_KEYS, LatencyTable


def space_of(table: LatencyTable, space: str | None) -> SpaceSpec | None:
    """The space that a table is to be applied to: the one asked for, or the shipped one it was measured for.

    Raises:
        SpaceError: There is no such space.
    """
    if space is not None:
        return SpaceSpec.from_yaml(space)
    return SpaceSpec.from_yaml(table.space) if table.space in shipped_spaces() else None


def costs_of(table: LatencyTable, spec: SpaceSpec | None) -> SpaceCosts:
    """The table applied to a space, or to the layers it names itself.

    Raises:
        LatencyTableError: The table knows operators, and the space is not known.
        MissingOperatorError: The table lacks operators of the space; all are listed.
    """
    if spec is not None:
        return table.costs(spec)
    return table.own_costs()


def predict(costs: SpaceCosts, architectures: ArchitectureFile) -> FloatArray:
    """Cost of each architecture, or expected cost of each distribution, in the table's unit.

    Args:
        costs: The table applied to a space.
        architectures: `n` of them.

    Returns:
        Shape (n,).

    Raises:
        InputError: A layer or candidate is missing or unknown.
    """
    if not architectures.distributions:
        return costs.of_many(architectures.columns)
    return np.array([expected(costs, distribution) for distribution in architectures.distributions])


def expected(costs: SpaceCosts, distribution: Mapping[str, Mapping[str, float]]) -> float:
    """E[cost] where layers draw their candidates independently (paper eq. 5 and 6).

    Args:
        costs: The table applied to a space.
        distribution: Label to candidate to probability; candidates left out have none.

    Raises:
        InputError: A layer is missing, or a candidate is unknown.
    """
    probs = {}
    for label, names in costs.candidates.items():
        if label not in distribution:
            raise InputError(f"the distribution lacks layer {label}")
        for name in distribution[label]:
            if name not in names:
                raise InputError(f"layer {label}: " + unknown_name("candidate", name, names))
        probs[label] = torch.tensor([distribution[label].get(name, 0.0) for name in names], dtype=torch.float64)
    return float(costs.expected(probs))


def write_predictions(path: Path, architectures: ArchitectureFile, predicted: FloatArray, table: LatencyTable) -> Path:
    """A CSV with a row for each architecture, in order: its columns and what is predicted, `latency_ms`.

    A column of that name in the input (measured latencies, say) becomes `measured_latency_ms`. Tables of another unit
    name their column by it.
    """
    name = COST_KEYS[table.unit]
    columns = {("measured_" + key if key == name else key): column for key, column in architectures.columns.items()}
    frame = pd.DataFrame({**columns, name: predicted})
    return write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def load_tables(paths: list[Path]) -> list[LatencyTable]:
    """Several tables; an error names the file.

    Raises:
        LatencyTableError: One is no table.
    """
    tables = [LatencyTable.load(path) for path in paths]
    units = {table.unit for table in tables}
    if len(units) > 1:
        raise LatencyTableError(f"the tables are of different units: {', '.join(sorted(units))}")
    return tables
