"""The history of a shared search for one of its targets, with the latencies and budgets of this target.

A shared search writes one history, with the latencies of the target whose trial happened to train it. The probabilities
of each epoch are kept, too. They determine the latencies for any table, in the same way as in a search for that target
alone.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from ..decoding.distribution import ArchitectureDistribution
from ..errors import DamagedFileError
from ..files import results_folder
from ..files.reading import read_rows
from ..network.architecture import Architecture
from .epoch_callback import Record

_LAST = ("seconds", "warnings")
Row = dict[str, Any]


def own_history(
    folder: Path, distribution: ArchitectureDistribution, budget_ms: float | None, found: Architecture | None = None
) -> list[Row]:
    """Return the rows of `history.csv` for a target.

    Args:
        folder: Folder of the shared search.
        distribution: Its distribution with the costs of the target, within all budgets but that of the target.
        budget_ms: Latency budget of the target in milliseconds; `None` for no such budget.
        found: Network that the target gets. The row of the last epoch has the values of this network, as in a search
            for that target alone. All other rows are those of the most likely network, which need not be within the
            budgets.

    Returns:
        A row for each epoch. `latency_ms` and `expected_latency_ms` are by the costs of the target, and there are
        `expected_<name>` and `decoded_<name>` for each other budget.

    Raises:
        DamagedFileError: A file of the shared search is damaged.
    """
    history = read_rows(folder / results_folder.HISTORY, "history", DamagedFileError)
    probabilities = read_rows(folder / results_folder.PROBABILITIES, "probabilities", DamagedFileError)
    by_epoch: dict[str, dict[tuple[str, str], float]] = {}
    for row in probabilities:
        by_epoch.setdefault(row["epoch"], {})[row["layer"], row["candidate"]] = float(row["probability"])
    own = []
    for row in history:
        of = by_epoch[row["epoch"]]
        then = replace(
            distribution,
            probs={
                label: torch.tensor([of[label, str(name)] for name in names], dtype=torch.float64)
                for label, names in distribution.candidates.items()
            },
        )
        if found is not None and row is history[-1]:
            choices, accuracies = dict(found.choices), _accuracies(found)
        else:
            choices, accuracies = replace(then, constraints=()).most_likely(), {}
        then = then.at_temperature(float(row.get("temperature", 1.0)))  # as in a search of its own
        own.append(_ordered({**row, **accuracies, **_latencies(then, choices, budget_ms), **then.progress(choices)}))
    return own


def record_of(row: Row) -> Record:
    """Return the record of an epoch that a row of a history states."""
    return Record(**{field.name: float(row[field.name]) for field in fields(Record) if field.name in row})


def _latencies(then: ArchitectureDistribution, choices: dict[str, Any], budget_ms: float | None) -> dict[str, float]:
    assert then.costs is not None
    expected = float(then.costs.expected(then.probs))
    told = {"latency_ms": then.costs.of(choices), "expected_latency_ms": expected}
    return told if budget_ms is None else {**told, "expected_over_budget": expected / budget_ms}


def _accuracies(found: Architecture) -> dict[str, float]:
    keys = [key for key in ("default", "balanced_accuracy") if key in found.metrics]
    return {key: found.metrics[key] for key in keys}


def _ordered(row: Row) -> Row:
    """Return a row with its columns in the order of a search of its own."""
    first = ("epoch", *(field.name for field in fields(Record)))
    keys = [*first, *(key for key in row if key not in first and key not in _LAST), *_LAST]
    return {key: row[key] for key in keys if key in row}
