"""Costs of the candidates of an NNI model space, from a latency table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from nni.nas.nn.pytorch import ModelSpace

from ..errors import LatencyTableError
from ..latency.costs import SpaceCosts
from ..latency.joint_costs import JointCosts
from ..latency.table import LatencyTable
from ..supernet.space import describe_space, require_description


def costs_of_space(table: LatencyTable, model: ModelSpace, candidates: Mapping[str, tuple[Any, ...]]) -> SpaceCosts:
    """Look up the costs of all candidates of a model space.

    A table of `measure_model_space` or of a fit to whole networks names the space's layers itself. Otherwise, the space
    must describe its operators, and the costs are looked up by operator.

    Args:
        table: Latency table.
        model: Model space, mutated or not.
        candidates: Mapping from labels to candidates, as an NNI sample names them.

    Raises:
        SpaceError: The table contains costs of operators, but the space does not describe its operators.
        LatencyTableError: The table has other layers or candidates than the space.
        MissingOperatorError: The table lacks operators of the space.
    """
    if table.composition is not None:
        return with_candidates(table.own_costs(), candidates)
    if describe_space(model) is not None or not table.fitted_to_layers:
        return table.costs(require_description(model, "latency="))
    costs = table.own_costs()
    layers = {label: values for label, values in costs.layers.items() if label in candidates}
    return with_candidates(replace(costs, layers=layers), candidates, "fitted to")


def counts_of_space(table: LatencyTable | None, candidates: Mapping[str, tuple[Any, ...]]) -> dict[str, SpaceCosts]:
    """Return the parameters, multiply-adds and peak memory of all networks, by name, as far as the table has them.

    Raises:
        LatencyTableError: The table has other layers or candidates than the space.
    """
    if table is None or table.composition is None:
        return {}
    return {name: with_candidates(costs, candidates) for name, costs in table.composition.quantities().items()}


def with_candidates(
    costs: SpaceCosts, candidates: Mapping[str, tuple[Any, ...]], origin: str = "measured for"
) -> SpaceCosts:
    """Return costs with the candidates of a model space in the space's order, instead of their names.

    Args:
        costs: Costs by the names of layers and candidates.
        candidates: Mapping from labels to candidates, as an NNI sample names them.
        origin: Where the costs come from, for the error message.

    Raises:
        LatencyTableError: The costs have other layers or candidates.
    """
    order = {}
    for label in dict.fromkeys([*candidates, *costs.layers]):
        known = list(costs.candidates.get(label, ()))
        names = [str(candidate) for candidate in candidates.get(label, ())]
        if sorted(known) != sorted(names):
            raise LatencyTableError(
                f"the table is {origin} other layers: for '{label}' it has {known}, and the space has {names}"
            )
        order[label] = [known.index(name) for name in names]
    layers = {label: tuple(costs.layers[label][place] for place in order[label]) for label in candidates}
    derived = tuple(quantity.with_candidates(order) for quantity in costs.derived)
    order |= {quantity.name: list(range(len(quantity.values))) for quantity in costs.derived}
    joint = tuple(
        JointCosts(labels, tuple(values[np.ix_(*(order[label] for label in labels))].ravel().tolist()))
        for labels, values in costs.joint_arrays
    )
    return SpaceCosts(costs.fixed, dict(candidates), layers, costs.unit, joint, derived)
