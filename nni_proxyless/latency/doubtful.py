"""Networks whose latency is doubtful near a budget, so that they should be timed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .table import LatencyTable
from .uncertainty import Uncertainty

DOUBTFUL = 0.05


@dataclass(frozen=True)
class Doubt:
    """What a table knows about the latency of a network and a budget.

    Attributes:
        predicted_ms: Predicted latency in milliseconds.
        std_ms: Standard deviation of a measurement around the prediction, in milliseconds.
        above: Probability that a measurement exceeds the budget, for a normally distributed error.
    """

    predicted_ms: float
    std_ms: float
    above: float

    @property
    def doubtful(self) -> bool:
        """Whether the probability to exceed the budget is between 5 % and 95 %."""
        return is_doubtful(self.above)


def uncertainty_of(table: LatencyTable) -> Uncertainty:
    """Return the uncertainty of a table.

    Raises:
        InputError: The table has none.
    """
    if table.uncertainty is None:
        raise InputError(
            f"the table of {table.device.name} ({table.backend}) has no standard deviations; only tables made by "
            "`nni-proxyless latency fit` of this version have them"
        )
    return table.uncertainty


def doubts(table: LatencyTable, architectures: Sequence[Mapping[str, Any]], budget_ms: float) -> list[Doubt]:
    """Compute for each network how probable it is that a measurement exceeds the budget.

    Args:
        table: Fitted table with an uncertainty.
        architectures: Networks as mappings from layer labels to candidates.
        budget_ms: Latency budget in milliseconds.

    Raises:
        InputError: The table has no uncertainty, or a network lacks a layer or has an unknown candidate.
    """
    known = uncertainty_of(table)
    if not architectures:
        return []
    costs = table.own_costs()
    named = [{label: str(name) for label, name in choices.items()} for choices in architectures]
    predicted = np.array([costs.of(choices) for choices in named])
    std = known.std({label: [choices[label] for choices in named] for label in costs.layers}, predicted)
    return [
        Doubt(p, s, probability_above(budget_ms, p, s)) for p, s in zip(predicted.tolist(), std.tolist(), strict=True)
    ]


def doubtful(table: LatencyTable, architectures: Sequence[Mapping[str, Any]], budget_ms: float) -> list[int]:
    """Find the networks of which a measurement may fall on either side of a budget, so that they should be timed.

    Args:
        table: Fitted table with an uncertainty.
        architectures: Networks as mappings from layer labels to candidates.
        budget_ms: Latency budget in milliseconds.

    Returns:
        Positions of the doubtful networks in `architectures`, those closest to even odds first.

    Raises:
        InputError: The table has no uncertainty, or a network lacks a layer or has an unknown candidate.
    """
    found = doubts(table, architectures, budget_ms)
    return sorted((i for i, doubt in enumerate(found) if doubt.doubtful), key=lambda i: abs(found[i].above - 0.5))


def is_doubtful(above: float) -> bool:
    """Whether a probability to exceed the budget is between 5 % and 95 %."""
    return DOUBTFUL < above < 1.0 - DOUBTFUL


def probability_above(budget_ms: float, predicted_ms: float, std_ms: float) -> float:
    """Compute the probability that a measured latency exceeds a budget, for a normally distributed error."""
    if std_ms <= 0:
        return float(predicted_ms > budget_ms)
    return 0.5 * math.erfc((budget_ms - predicted_ms) / (std_ms * math.sqrt(2.0)))
