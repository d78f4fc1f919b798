"""Cost predictions for many architectures at once, and for distributions over architectures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import InputError, LatencyTableError, unknown_name
from ..files.writing import write_text
from ..network.space_spec import SpaceSpec, shipped_spaces
from .architectures_file import ArchitectureFile
from .arrays import FloatArray
from .costs import SpaceCosts
from .doubtful import uncertainty_of
from .judgement import load_judged
from .table import COST_KEYS, LatencyTable


def space_of(table: LatencyTable, space: str | None) -> SpaceSpec | None:
    """Return the space to which a table is applied.

    Args:
        table: Latency table.
        space: Name of a shipped space or path of a space file. Defaults to the space for which the table was measured.

    Returns:
        The space, or `None` if `space` is not given and the table's own space is not a shipped one.

    Raises:
        SpaceError: The space does not exist.
    """
    if space is not None:
        return SpaceSpec.from_yaml(space)
    return SpaceSpec.from_yaml(table.space) if table.space in shipped_spaces() else None


def costs_of(table: LatencyTable, spec: SpaceSpec | None) -> SpaceCosts:
    """Apply a table to a space, or, without a space, to the layers that a fitted table names.

    Raises:
        LatencyTableError: No space is given, and the table has entries for operators instead of layers.
        MissingOperatorError: The table lacks operators of the space. The message lists all of them.
    """
    if spec is not None:
        return table.costs(spec)
    return table.own_costs()


def predict(costs: SpaceCosts, architectures: ArchitectureFile) -> FloatArray:
    """Compute the cost of each architecture, or the expected cost of each distribution, in the table's unit.

    Args:
        costs: Table applied to a space.
        architectures: `n` architectures or distributions.

    Returns:
        Costs, shape (n,).

    Raises:
        InputError: A layer is missing, a candidate is unknown, or the table predicts a cost of 0 or less.
    """
    if architectures.distributions:
        predicted = np.array([expected(costs, distribution) for distribution in architectures.distributions])
    else:
        predicted = costs.of_many(architectures.columns)
    bad = np.flatnonzero(~(predicted > 0))
    if len(bad):
        raise InputError(
            f"the table predicts {predicted[bad[0]]:.4g} {costs.unit} for network {bad[0] + 1}, which is impossible; "
            "fit it to smaller networks as well"
        )
    return predicted


def expected(costs: SpaceCosts, distribution: Mapping[str, Mapping[str, float]]) -> float:
    """Compute E[cost] if every layer draws its candidate independently (paper eq. 5 and 6).

    Args:
        costs: Table applied to a space.
        distribution: Probability by layer label and candidate name. Omitted candidates have probability 0.

    Raises:
        InputError: A layer is missing, or a candidate is unknown.
    """
    import torch

    probs = {}
    for label, names in costs.candidates.items():
        if label not in distribution:
            raise InputError(f"the distribution lacks layer {label}")
        for name in distribution[label]:
            if name not in names:
                raise InputError(f"layer {label}: " + unknown_name("candidate", name, names))
        probs[label] = torch.tensor([distribution[label].get(name, 0.0) for name in names], dtype=torch.float64)
    return float(costs.expected(probs))


def predict_std(table: LatencyTable, architectures: ArchitectureFile, predicted: FloatArray) -> FloatArray:
    """Compute the standard deviation of each prediction: of a new measurement around the predicted latency.

    Args:
        table: Fitted table with an uncertainty.
        architectures: `n` architectures or distributions.
        predicted: Their predicted latencies, as `predict` returns them, shape (n,).

    Returns:
        Standard deviations in the table's unit, shape (n,).

    Raises:
        InputError: The table has no uncertainty.
    """
    known = uncertainty_of(table)
    if not architectures.distributions:
        return known.std(architectures.columns, predicted)
    return np.array(
        [known.std_of_distribution(d, float(p)) for d, p in zip(architectures.distributions, predicted, strict=True)]
    )


def write_predictions(
    path: Path,
    architectures: ArchitectureFile,
    predicted: FloatArray,
    table: LatencyTable,
    std: FloatArray | None = None,
) -> Path:
    """Write a CSV file with one row per architecture: the columns of the input file, then the predicted cost.

    The column of the predicted cost is named after the table's unit: `latency_ms`, `flops` or `params`. A column with
    the same name in the input, such as measured latencies in `latency_ms`, gets the prefix `measured_`.

    Args:
        path: Path of the CSV file.
        architectures: Architectures or distributions for which costs were predicted.
        predicted: Predicted costs in the table's unit, shape (n,).
        table: Table that made the predictions.
        std: Standard deviations of the predictions, shape (n,), for the column `std_ms`.
    """
    made = {COST_KEYS[table.unit]: predicted, **({} if std is None else {"std_ms": std})}
    columns = {("measured_" + key if key in made else key): column for key, column in architectures.columns.items()}
    frame = pd.DataFrame({**columns, **made})
    return write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def load_tables(paths: list[Path]) -> list[LatencyTable]:
    """Load several tables of the same unit.

    Raises:
        LatencyTableError: A file is not a valid table (the message names the file), or the tables have different units.
    """
    tables = [load_judged(path) for path in paths]
    units = {table.unit for table in tables}
    if len(units) > 1:
        raise LatencyTableError(f"the tables are of different units: {', '.join(sorted(units))}")
    return tables
