"""The message for constraints that no network satisfies: which of them conflict, and how close a network can come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunError
from ..values import budget_text, rounded_up
from .constraint import Constraint, Problem
from .integer_program import solve

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor


def explain_conflict(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> str:
    """Say which constraints no network satisfies together, and the nearest values that one does satisfy.

    Values are rounded up, so that a network exists within each of them.

    Args:
        probs: Path probabilities of each label, shape (num_candidates,). Paths with probability 0 were pruned.
        constraints: Constraints that no network satisfies.

    Returns:
        Message of one line. It names all constraints that cannot be satisfied alone. If there are none, it names
        constraints that conflict: without any one of them, the others can be satisfied together. For each of these, it
        gives the smallest value that is possible within all other constraints. If changing one constraint does not
        suffice, it gives the values of the network whose largest excess, relative to the limit, is smallest.
    """
    alone = [(c, least) for c in constraints if not c.holds(least := _least(probs, c, []) or 0.0)]
    if alone:
        texts = [f"{_limit(c)}, and the smallest value of any network is {_value(c, least)}" for c, least in alone]
        told = f"no network of this space is within {'; nor within '.join(texts)}"
        raised = {id(c): replace(c, limit=least) for c, least in alone}
        if _satisfiable(probs, [raised.get(id(c), c) for c in constraints]):
            return told
        return f"{told}; {_nearest(probs, constraints)}"
    conflict = list(constraints)
    for constraint in constraints:
        others = [c for c in conflict if c is not constraint]
        if not _satisfiable(probs, others):
            conflict = others
    told = f"no network of this space is within {' and '.join(map(_limit, conflict))} together"
    possible = []
    for constraint in conflict:
        nearest = _least(probs, constraint, [c for c in constraints if c is not constraint])
        if nearest is not None:
            possible.append(f"{constraint.name} of at least {_value(constraint, nearest)} if the rest holds")
    if possible:
        return f"{told}; possible: {', or '.join(possible)}"
    return f"{told}, and other budgets conflict, too; {_nearest(probs, constraints)}"


def _satisfiable(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> bool:
    if not constraints:
        return True
    problem = Problem.of(probs, constraints)
    return problem is not None and solve(problem, 0 * problem.flat_logs) is not None


def _least(probs: Mapping[str, Tensor], constraint: Constraint, others: Sequence[Constraint]) -> float | None:
    """Find the smallest value of one quantity within other constraints; `None` if these conflict."""
    if constraint.combine == "max":
        values = constraint.costs.entries()
        steps = [replace(constraint, limit=value) for value in values if value >= constraint.costs.fixed]
        if not _satisfiable(probs, [*others, steps[-1]]):
            return None
        low, high = 0, len(steps) - 1
        while low < high:
            middle = (low + high) // 2
            if _satisfiable(probs, [*others, steps[middle]]):
                high = middle
            else:
                low = middle + 1
        return steps[high].limit
    problem = Problem.of(probs, [replace(constraint, limit=constraint.largest), *others])
    picks = None if problem is None else solve(problem, problem.flat_costs[0], without=0)
    return None if problem is None or picks is None else constraint.of(problem.choices(picks))


def _nearest(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> str:
    """Say the values of the network whose largest excess over a limit, relative to the limit, is smallest."""
    choices = _nearest_choices(probs, constraints)
    values = {c.name: _value(c, c.of(choices)) for c in constraints}
    return f"the network nearest to all budgets has {', '.join(f'{name} {text}' for name, text in values.items())}"


def _nearest_choices(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> dict[str, Any]:
    """Find that network by an integer programme with the excess t as a further variable."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack

    added = [c for c in constraints if c.combine == "sum"]
    maxima = [c for c in constraints if c.combine == "max"]
    above = [_above(c) for c in maxima if c.costs.joint]
    problem = Problem.of(probs, [*added, *above, *(replace(c, limit=math.inf) for c in maxima)])
    assert problem is not None  # no limit of a maximum is left
    total = len(problem.flat_logs)
    rows, room = list(problem.flat_costs[: len(added)]), list(problem.room[: len(added)])
    least = 0.0
    # A candidate or combination is excluded unless t is at least its own excess.
    excesses = list(problem.flat_costs[len(added) : len(added) + len(above)])
    for constraint in maxima:
        scale = 1.0 / constraint.limit if constraint.limit else 1.0
        least = max(least, (constraint.costs.fixed - constraint.limit) * scale)
        values = [
            constraint.costs.layers[label][list(constraint.costs.candidates[label]).index(name)]
            for label, names in zip(problem.labels, problem.names, strict=True)
            if label in constraint.costs.layers
            for name in names
        ]
        excesses.append(np.array([max(value - constraint.limit, 0.0) * scale for value in values]))
    for number, excess_of in ((n, of[n]) for of in excesses for n in np.flatnonzero(of)):
        row = np.zeros(total)
        row[number] = excess_of
        rows.append(row)
        room.append(0.0)
    excess = np.hstack([np.array(rows), -np.ones((len(rows), 1))])

    def with_excess(matrix: Any) -> Any:
        return hstack([matrix, csr_array((matrix.shape[0], 1))])

    links = problem.links()
    solved = milp(
        np.append(np.zeros(total), 1.0),
        constraints=[
            LinearConstraint(with_excess(problem.one_of_each()), 1, 1),
            LinearConstraint(excess, -np.inf, room),
            *([] if links is None else [LinearConstraint(with_excess(links), 0, 0)]),
        ],
        bounds=Bounds(np.append(np.zeros(total), least), np.append(np.ones(total), np.inf)),
        integrality=np.arange(total + 1) < sum(problem.sizes),
        options={"mip_rel_gap": 0},
    )
    if solved.x is None:
        raise RunError(f"the integer programme of the budgets was not solved: {solved.message}")
    starts = np.cumsum([0, *problem.sizes]).tolist()
    picks = [int(np.argmax(solved.x[a:b])) for a, b in pairwise(starts)]
    return problem.choices(picks)


def _above(constraint: Constraint) -> Constraint:
    """Return the additive costs of combinations by how far they exceed a maximum, relative to the limit."""
    costs = constraint.costs
    scale = 1.0 / constraint.limit if constraint.limit else 1.0
    joint = tuple(
        replace(each, values=tuple(max(value - constraint.limit, 0.0) * scale for value in each.values))
        for each in costs.joint
    )
    layers = {label: (0.0,) * len(values) for label, values in costs.layers.items()}
    return Constraint(constraint.name, 1.0, replace(costs, fixed=0.0, layers=layers, joint=joint))


def _limit(constraint: Constraint) -> str:
    if constraint.costs.unit == "ms":
        number = f"{constraint.limit:.4g} ms"
    else:
        number = f"{constraint.limit:.0f}{' bytes' if constraint.costs.unit == 'bytes' else ''}"
    part = "" if constraint.fraction is None else f" ({100 * constraint.fraction:g} %)"
    return f"{constraint.name} <= {number}{part}"


def _value(constraint: Constraint, value: float) -> str:
    """Format a value, rounded up, so that it is a limit that a network is within."""
    if constraint.costs.unit == "ms":
        number = budget_text(value)
    else:
        number = f"{math.ceil(value * (1 - 1e-12))}{' bytes' if constraint.costs.unit == 'bytes' else ''}"
    if constraint.fraction is None:
        return number
    return f"{number} ({rounded_up(100 * value / constraint.largest, 2):g} %)"
