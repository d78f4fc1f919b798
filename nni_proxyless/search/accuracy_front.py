"""Fronts in accuracy: networks of the front in likelihood, evaluated with the weights of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..decoding.budgets import Limit
from ..decoding.pareto import non_dominated
from ..decoding.pareto_front import LIKELIHOOD, FrontNetwork, spread
from ..latency.table import LatencyTable
from ..progress import work_begins
from .shared_weights import SharedWeightComparison

ACCURACY = "accuracy"


def front_by_accuracy(
    folder: Path, names: Sequence[str], tables: Mapping[str, LatencyTable], limits: Sequence[Limit], count: int
) -> tuple[list[FrontNetwork], list[float]]:
    """Find the front in accuracy and other quantities, among networks of the front in likelihood and these quantities.

    Args:
        folder: Folder of a search's results, with its checkpoint and its recipe. The recipe's data must be available.
        names: Quantities, one of which is `accuracy`, with the weights of the search on the images on which finalists
            are compared.
        tables: Latency tables by target.
        limits: Budgets.
        count: Number of networks that are evaluated. They are spread over the front in likelihood.

    Returns:
        Networks of the front, whose values have the log-likelihood too, and their accuracies on held-out images.

    Raises:
        InputError: See `SearchCheckpoint.front` and `SharedWeightComparison`.
    """
    comparison = SharedWeightComparison(folder, count)
    costs = [name for name in names if name not in (ACCURACY, LIKELIHOOD)]
    likely = comparison.found.front([LIKELIHOOD, *costs], tables, limits)
    work_begins()
    chosen = [likely[number] for number in spread(likely, count)]
    chosen = [
        replace(network, values={ACCURACY: comparison.accuracy(network.choices), **network.values})
        for network in chosen
    ]
    signs = {ACCURACY: -1.0, LIKELIHOOD: -1.0}
    points = np.array([[signs.get(name, 1.0) * network.values[name] for name in names] for network in chosen])
    best = [chosen[number] for number in non_dominated(points)]
    return best, [comparison.held_out_accuracy(network.choices) for network in best]
