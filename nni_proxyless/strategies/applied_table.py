"""Costs of the candidates of an NNI model space, from a latency table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni.nas.nn.pytorch import ModelSpace

from ..errors import LatencyTableError
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..supernet.space import describe_space, require_description


def costs_of_space(table: LatencyTable, model: ModelSpace, candidates: Mapping[str, tuple[Any, ...]]) -> SpaceCosts:
    """Look up the costs of all candidates of a model space.

    If the space describes its operators, the costs are looked up by operator. If not, they are looked up by label, for
    which the table must have been fitted to the layers of this space.

    Args:
        table: Latency table.
        model: Model space, mutated or not.
        candidates: Mapping from labels to candidates, as an NNI sample names them.

    Raises:
        SpaceError: The table contains costs of operators, but the space does not describe its operators.
        LatencyTableError: The table was fitted to other layers.
        MissingOperatorError: The table lacks operators of the space.
    """
    if describe_space(model) is not None or not table.fitted_to_layers:
        return table.costs(require_description(model, "latency="))
    costs = table.own_costs()
    layers = {}
    for label, of in candidates.items():
        known, names = list(costs.candidates.get(label, ())), [str(candidate) for candidate in of]
        if sorted(known) != sorted(names):
            raise LatencyTableError(
                f"the table is fitted to other layers: of '{label}' it knows {known}, the space has {names}"
            )
        layers[label] = tuple(costs.layers[label][known.index(name)] for name in names)
    return SpaceCosts(costs.fixed, dict(candidates), layers)
