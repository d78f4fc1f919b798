"""Decoding within several constraints as an integer programme, solved by SciPy's HiGHS.

Each candidate i of layer l has a binary variable x_li. The programme maximises Σ x_li log p_li subject to Σ_i x_li = 1
for each layer, and Σ x_li F_k(o_li) ≤ limit_k for each constraint k. It is used to find out which constraints conflict,
and for architectures where `decoding.constraints` would keep too many partial ones. Each combination of a cost of
several layers has a variable of its own (`latency/joint_costs.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunError
from .constraint import Constraint, FloatArray, Problem

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

_INFEASIBLE = 2


def likeliest_by_milp(problem: Problem, count: int) -> list[dict[str, Any]]:
    """Find the `count` most likely architectures within the constraints, the most likely one first.

    Each architecture that was found is excluded by a no-good cut, Σ of its variables ≤ L - 1, before the next one is
    searched for. Likelihoods that differ by less than HiGHS's tolerance of 1e-6 may change places.

    Args:
        problem: Problem.
        count: Number of architectures.

    Returns:
        Different architectures as mappings from labels to candidates; fewer than `count` if there are no more.

    Raises:
        RunError: HiGHS did not solve the programme.
    """
    found: list[dict[str, Any]] = []
    cuts: list[FloatArray] = []
    starts = np.cumsum([0, *problem.sizes])
    while len(found) < count:
        solution = _solve(problem, -problem.flat_logs, range(len(problem.room)), cuts)
        if solution is None:
            break
        cuts.append(np.where(np.arange(len(solution)) < starts[-1], solution, 0.0))
        picks = [int(solution[a:b].argmax()) for a, b in itertools.pairwise(starts.tolist())]
        # HiGHS tolerates violations of 1e-6. Such an architecture is cut off, but not returned.
        if problem.fits(picks):
            found.append(problem.choices(picks))
    return found


def _solve(
    problem: Problem, objective: FloatArray, constraints: Sequence[int] | range, cuts: Sequence[FloatArray] = ()
) -> FloatArray | None:
    """Minimise a linear objective over the architectures; return the variables, or `None` if there is no solution."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = [LinearConstraint(problem.one_of_each(), 1, 1)]
    if (links := problem.links()) is not None:
        rows.append(LinearConstraint(links, 0, 0))
    chosen = list(constraints)
    if chosen:
        rows.append(LinearConstraint(problem.flat_costs[chosen], -np.inf, problem.room[chosen]))
    if cuts:
        rows.append(LinearConstraint(np.array(cuts), -np.inf, len(problem.labels) - 1))
    solved = milp(
        objective,
        constraints=rows,
        bounds=Bounds(0, 1),
        integrality=np.arange(len(objective)) < sum(problem.sizes),
        options={"mip_rel_gap": 0},
    )
    if solved.status == _INFEASIBLE:
        return None
    if solved.x is None:
        raise RunError(f"the integer programme of the budgets was not solved: {solved.message}")
    solution: FloatArray = np.round(solved.x)
    return solution


def explain_conflict(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> str:
    """Say which constraints no network satisfies together, and the nearest values that one does satisfy.

    Args:
        probs: Path probabilities of each label, shape (num_candidates,). Paths with probability 0 were pruned.
        constraints: Constraints that no network satisfies.

    Returns:
        Message of one line. It names constraints that cannot be satisfied alone, or else a smallest set of constraints
        that conflict: without any one of them, the others can be satisfied.
    """
    alone = [(c, least) for c in constraints if not c.holds(least := _least(probs, c, []) or 0.0)]
    if alone:
        texts = [f"{_limit(c)}, and the smallest value of any network is {_value(c, least)}" for c, least in alone]
        return f"no network of this space is within {'; nor within '.join(texts)}"
    conflict = list(constraints)
    for constraint in constraints:
        others = [c for c in conflict if c is not constraint]
        if not _satisfiable(probs, others):
            conflict = others
    nearest = []
    for constraint in conflict:
        others = [c for c in conflict if c is not constraint]
        nearest_value = _least(probs, constraint, others)
        if nearest_value is not None:
            nearest.append(f"{constraint.name} of at least {_value(constraint, nearest_value)} if the rest holds")
    told = [_limit(c) for c in conflict]
    return f"no network of this space is within {' and '.join(told)} together; possible: {', or '.join(nearest)}"


def _satisfiable(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> bool:
    if not constraints:
        return True
    problem = Problem.of(probs, constraints)
    return problem is not None and _solve(problem, 0 * problem.flat_logs, range(len(problem.room))) is not None


def _least(probs: Mapping[str, Tensor], constraint: Constraint, others: Sequence[Constraint]) -> float | None:
    """Find the smallest value of one quantity within other constraints; `None` if these conflict alone."""
    if constraint.combine == "max":
        steps = sorted({constraint.costs.fixed, *(v for values in constraint.costs.layers.values() for v in values)})
        for limit in steps:
            relaxed = Constraint(constraint.name, limit, constraint.costs, "max")
            if limit >= constraint.costs.fixed and _satisfiable(probs, [*others, relaxed]):
                return float(limit)
        return None
    problem = Problem.of(probs, [Constraint(constraint.name, constraint.largest, constraint.costs), *others])
    if problem is None:
        return None
    solution = _solve(problem, problem.flat_costs[0], range(1, len(problem.room)))
    if solution is None:
        return None
    starts = np.cumsum([0, *problem.sizes])
    picks = [int(solution[a:b].argmax()) for a, b in itertools.pairwise(starts.tolist())]
    return constraint.of(problem.choices(picks))


def _limit(constraint: Constraint) -> str:
    return f"{constraint.name} <= {_value(constraint, constraint.limit)}"


def _value(constraint: Constraint, value: float) -> str:
    unit = constraint.costs.unit
    number = f"{value:.4g}" if unit == "ms" else f"{value:,.0f}".replace(",", "")
    return f"{number} {unit}" if unit in ("ms", "bytes") else number
