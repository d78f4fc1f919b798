"""Decoding within several constraints as an integer programme, solved by SciPy's HiGHS.

Each candidate i of layer l has a binary variable x_li. The programme maximises Σ x_li log p_li subject to Σ_i x_li = 1
for each layer, and Σ x_li F_k(o_li) ≤ limit_k for each constraint k. It is used to find out which constraints conflict,
and for architectures where `decoding.constraints` would keep too many partial ones. Each combination of a cost of
several layers has a variable of its own (`latency/joint_costs.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import RunError
from .constraint import FloatArray, Problem

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
    while len(found) < count:
        picks = solve(problem, -problem.flat_logs, cuts)
        if picks is None:
            break
        found.append(problem.choices(picks))
    return found


def solve(
    problem: Problem, objective: FloatArray, cuts: list[FloatArray] | None = None, without: int | None = None
) -> list[int] | None:
    """Find the architecture with the smallest sum of an objective that satisfies the constraints.

    HiGHS tolerates violations of 1e-6. An architecture that only satisfies the constraints within that is cut off.

    Args:
        problem: Problem.
        objective: Coefficient of each candidate of each layer, and of each combination, shape (total,).
        cuts: Architectures that are excluded; the one that is found is added.
        without: Number of a constraint that is left out.

    Returns:
        Position of the candidate in each layer; `None` if no architecture satisfies the constraints.

    Raises:
        RunError: HiGHS did not solve the programme.
    """
    cuts = [] if cuts is None else cuts
    kept = [number for number in range(len(problem.room)) if number != without]
    starts = np.cumsum([0, *problem.sizes])
    while True:
        solution = _solve(problem, objective, kept, cuts)
        if solution is None:
            return None
        cuts.append(np.where(np.arange(len(solution)) < starts[-1], solution, 0.0))
        picks = [int(solution[a:b].argmax()) for a, b in itertools.pairwise(starts.tolist())]
        if np.all((problem.used(picks) <= problem.room)[kept]):
            return picks


def _solve(
    problem: Problem, objective: FloatArray, chosen: Sequence[int], cuts: Sequence[FloatArray]
) -> FloatArray | None:
    """Minimise a linear objective over the architectures; return the variables, or `None` if there is no solution."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rows = [LinearConstraint(problem.one_of_each(), 1, 1)]
    if (links := problem.links()) is not None:
        rows.append(LinearConstraint(links, 0, 0))
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
