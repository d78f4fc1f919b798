"""Refusal of budgets that no network can meet, as far as the latency tables alone show it.

A table that names its layers, such as one of `measure_model_space`, knows all networks of its space. A table of
operators gives a lower bound for any space. Checks that need the space itself follow when the experiment starts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..decoding.budgets import LATENCY, constraints_of
from ..decoding.constraint import Constraint
from ..decoding.constraints import likeliest_satisfying
from ..errors import InputError
from ..latency.costs import SpaceCosts
from ..latency.fastest import least_ms
from ..latency.table import LatencyTable
from ..values import budget_text
from .stated_budgets import StatedBudgets


def refuse_impossible(stated: StatedBudgets) -> None:
    """Check that some network can be within the budgets.

    Args:
        stated: Tables and budgets of a strategy.

    Raises:
        InputError: According to the tables, no network is within the budgets; the message has the nearest feasible
            value. Or a table is not in milliseconds.
    """
    for table in stated.tables.values():
        if table.unit != "ms":
            raise InputError(
                f"latency= needs a table in ms, got one in {table.unit}; give it as "
                "penalty={'profiler': LatencyProfiler(space, table), 'baseline': …} instead"
            )
    limited = {limit.name for limit in stated.limits}
    if stated.request is not None and stated.request.hard and stated.target is not None:
        limited.add(stated.target)
    costs = {name: table.own_costs() for name, table in stated.tables.items() if name in limited and table.names_layers}
    for name in limited & (stated.tables.keys() - costs.keys()):
        _refuse_below(stated, name)
    if stated.request is not None and stated.target in costs:
        stated.request.resolve(costs[stated.target])
    counts: dict[str, SpaceCosts] = {}
    if stated.counts is not None and stated.counts.composition is not None:
        counts = {name: of for name, of in stated.counts.composition.quantities().items() if name in limited}
    known = tuple(limit for limit in stated.limits if limit.name in costs or limit.name in counts)
    if known:
        constraints = constraints_of(known, costs, None, counts)
        own = costs.get(stated.target or LATENCY)
        if own is not None and stated.request is not None and stated.request.hard:
            constraints = (Constraint(stated.target or LATENCY, stated.request.resolve(own).ms, own), *constraints)
        _refuse_conflict(constraints)


def _refuse_below(stated: StatedBudgets, name: str) -> None:
    """Refuse a budget in milliseconds below the bound that a table of operators gives."""
    limits = [limit.value for limit in stated.limits if limit.name == name]
    if name == stated.target and stated.request is not None:
        limits.append(stated.request.ms)
    least = least_ms(stated.tables[name])
    for ms in limits:
        if ms is not None and least is not None and not ms >= least * (1 - 1e-9):
            raise InputError(
                f"no network of this space takes {ms:.4g} ms or less; the fastest takes at least "
                f"{budget_text(least)} according to the table of {_named(stated.tables[name], name)}"
            )


def _named(table: LatencyTable, name: str) -> str:
    return table.device.name if name == LATENCY else f"'{name}'"


def _refuse_conflict(constraints: Sequence[Constraint]) -> None:
    """Refuse constraints that conflict. Tables of different spaces are told apart when the space is known."""
    groups: list[list[Constraint]] = []
    for constraint in constraints:
        for group in groups:
            if _same_layers(group[0].costs, constraint.costs):
                group.append(constraint)
                break
        else:
            groups.append([constraint])
    for group in groups:
        uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in group[0].costs.candidates.items()}
        likeliest_satisfying(uniform, group)


def _same_layers(one: SpaceCosts, other: SpaceCosts) -> bool:
    return {k: tuple(of) for k, of in one.candidates.items()} == {k: tuple(of) for k, of in other.candidates.items()}
