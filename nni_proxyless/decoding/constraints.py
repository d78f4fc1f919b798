"""Decoding of a distribution over architectures within several constraints at once.

The most likely architecture within K constraints is a multiple-choice knapsack problem with K dimensions. Its linear
relaxation is solved by SciPy's HiGHS. The multipliers of that solution give an upper bound on the likelihood of every
partial architecture (Lagrangian relaxation; Geoffrion 1974), with which `likeliest_satisfying` enumerates exactly.
`decoding.integer_program` solves the same problem by integer programming, which is exact as well, but takes a second
and more for each architecture. `decoding.knapsack` is for one additive constraint.

The results are deterministic, and no function has side effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .conflicts import explain_conflict
from .constraint import Constraint, FloatArray, IntArray, Problem
from .integer_program import likeliest_by_milp

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

_FIRST_WIDTH, _LARGEST_WIDTH, _GROWTH = 4096, 2**21, 8


def likeliest_satisfying(
    probs: Mapping[str, Tensor], constraints: Sequence[Constraint], count: int = 1
) -> list[dict[str, Any]]:
    """Find the `count` most likely architectures that satisfy all constraints, the most likely one first.

    The layers are added one after the other, for all partial architectures at once. A partial architecture is dropped
    if no choice of the remaining layers satisfies the constraints, or if its bound is below the likelihood of `count`
    known architectures. If there are too many, those with the best bounds are kept first, which finds good
    architectures, and then the search is repeated with more. The result is exact: the last pass drops nothing that
    could be part of it.

    Args:
        probs: Path probabilities of each label of the costs, shape (num_candidates,). Paths with probability 0 (pruned
            paths) are not chosen.
        constraints: Constraints, at least one, whose costs have the same labels and candidates.
        count: Number of architectures.

    Returns:
        Different architectures as mappings from labels to candidates. There are fewer than `count` if not enough
        architectures satisfy the constraints. Equally likely ones are in the order of their candidates.

    Raises:
        InputError: No architecture satisfies all constraints. The message names the constraints that conflict.
    """
    problem = Problem.of(probs, constraints)
    multipliers = None if problem is None else problem.multipliers()
    if problem is None or multipliers is None:
        raise InputError(explain_conflict(probs, constraints))
    width, threshold = _FIRST_WIDTH, -np.inf
    while width <= _LARGEST_WIDTH:
        found = _Pass(problem, multipliers, count, width, threshold)
        if found.complete:
            if len(found.scores) == 0:
                raise InputError(explain_conflict(probs, constraints))
            return [problem.choices(picks) for picks in found.picks.tolist()]
        threshold = found.threshold
        width *= _GROWTH
    exact = likeliest_by_milp(problem, count)
    if not exact:
        raise InputError(explain_conflict(probs, constraints))
    return exact


def can_be_satisfied(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> bool:
    """Whether some architecture without pruned paths satisfies all constraints; see `likeliest_satisfying`."""
    problem = Problem.of(probs, constraints)
    if problem is None:
        return False
    if len(problem.room) <= 1:  # the cheapest architecture decides
        return bool(np.all(np.sum([c.min(axis=0) for c in problem.costs], axis=0) <= problem.room))
    try:
        likeliest_satisfying(probs, constraints)
    except InputError:
        return False
    return True


class _Pass:
    """One enumeration of partial architectures, layer by layer.

    Args:
        problem: Problem.
        multipliers: Multipliers λ of the constraints, at least 0, shape (K,).
        count: Number of architectures that are wanted.
        width: Number of partial architectures that are kept after each layer.
        threshold: Log-likelihood below which architectures are not wanted.

    Attributes:
        picks: Positions of the candidates of the most likely architectures, shape (up to count, L).
        scores: Their log-likelihoods, falling.
        threshold: Log-likelihood of the last of `count` architectures, or the argument if there are fewer.
        complete: Whether nothing was dropped that could be among the `count` most likely architectures.
    """

    def __init__(self, problem: Problem, multipliers: FloatArray, count: int, width: int, threshold: float) -> None:
        gains = [logs - costs @ multipliers for logs, costs in zip(problem.logs, problem.costs, strict=True)]
        ahead = np.append(np.cumsum([gain.max() for gain in gains][::-1])[::-1][1:], 0.0)
        least = np.cumsum([c.min(axis=0) for c in problem.costs][::-1], axis=0)[::-1]
        least = np.vstack([least[1:], np.zeros((1, len(problem.room)))])
        score, used = np.zeros(1), np.zeros((1, len(problem.room)))
        steps: list[tuple[IntArray, IntArray]] = []
        best_dropped = -np.inf
        slack = 1e-9 * max(1.0, abs(threshold)) if np.isfinite(threshold) else 0.0
        for logs, costs, later, minimum in zip(problem.logs, problem.costs, ahead, least, strict=True):
            score = (score[:, None] + logs).ravel()  # (states * num_candidates,)
            used = (used[:, None, :] + costs).reshape(len(score), len(problem.room))
            possible = np.all(used + minimum <= problem.room, axis=1)
            bound = score + later + (problem.room - used) @ multipliers
            kept = np.flatnonzero(possible & (bound >= threshold - slack))
            if len(kept) > width:
                order = kept[np.argsort(-bound[kept], kind="stable")]
                best_dropped = max(best_dropped, float(bound[order[width]]))
                kept = np.sort(order[:width])
            steps.append((kept // len(logs), kept % len(logs)))
            score, used = score[kept], used[kept]
        order = np.argsort(-score, kind="stable")[:count]
        self.scores = score[order]
        self.picks = np.zeros((len(order), len(steps)), dtype=np.int64)
        for layer in range(len(steps) - 1, -1, -1):
            parents, chosen = steps[layer]
            self.picks[:, layer] = chosen[order]
            order = parents[order]
        self.threshold = float(self.scores[-1]) if len(self.scores) == count else threshold
        self.complete = best_dropped == -np.inf or (
            len(self.scores) == count and best_dropped < self.threshold - 1e-9 * max(1.0, abs(self.threshold))
        )
