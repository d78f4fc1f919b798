"""Surrogate constraints: weighted sums of constraints, which rule out partial architectures that each one alone allows.

Every architecture that satisfies all constraints satisfies Σ_k w_k F_k ≤ Σ_k w_k limit_k for any weights w ≥ 0 (Glover
1965). If few architectures are within several tight budgets, a partial architecture can often be completed within each
single budget, but hardly ever within the weighted sum. The weights that exclude most are the dual solution of the
linear programme that minimises the largest excess.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .constraint import Factor, Problem, Relaxation

_TOLERANCE = 1e-9


def with_surrogate(problem: Problem, relaxation: Relaxation) -> tuple[Problem, Relaxation]:
    """Add a surrogate constraint to a problem. It excludes no solution, and the bound does not use it.

    Args:
        problem: Problem with K constraints.
        relaxation: Dual solution of its linear relaxation.

    Returns:
        The problem with K + 1 constraints, and its relaxation; both unchanged if K is less than 2, or with derived
        quantities.
    """
    if len(problem.room) < 2 or problem.derived:
        return problem, relaxation
    weights = _weights(problem)
    if weights is None:
        return problem, relaxation
    costs = tuple(np.column_stack([own, own @ weights]) for own in problem.costs)
    factors = tuple(
        Factor(factor.layers, np.concatenate([factor.costs, (factor.costs @ weights)[..., None]], axis=-1))
        for factor in problem.factors
    )
    room = np.append(problem.room, problem.room @ weights + _TOLERANCE)
    made = replace(problem, costs=costs, room=room, factors=factors)
    return made, replace(relaxation, multipliers=np.append(relaxation.multipliers, 0.0))


def _weights(problem: Problem) -> np.ndarray | None:
    """Weights of the constraints, at least 0 and 1 in sum; `None` if the linear programme was not solved."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, hstack, vstack

    total = len(problem.flat_logs)
    equations, values = problem.one_of_each(), np.ones(len(problem.labels))
    if (links := problem.links()) is not None:
        equations = vstack([equations, links], format="csr")
        values = np.append(values, np.zeros(links.shape[0]))
    solved = linprog(
        np.append(np.zeros(total), 1.0),
        A_ub=np.hstack([problem.flat_costs, -np.ones((len(problem.room), 1))]),
        b_ub=problem.room,
        A_eq=hstack([equations, csr_array((equations.shape[0], 1))]),
        b_eq=values,
        bounds=[(0, 1)] * total + [(None, None)],
        method="highs",
    )
    if solved.status != 0:
        return None
    return np.maximum(-np.asarray(solved.ineqlin.marginals, dtype=np.float64), 0.0)
