"""Decoding of a distribution over architectures within several constraints at once.

The most likely architecture within K constraints is a multiple-choice knapsack problem with K dimensions. Its linear
relaxation is solved by SciPy's HiGHS. The multipliers of that solution give an upper bound on the likelihood of every
partial architecture (Lagrangian relaxation; Geoffrion 1974), with which `likeliest_satisfying` enumerates exactly.
A cost of several layers at once is bounded by its best value over the layers that are not chosen yet, and the dual
solution says which part of it the bound counts to each layer. The same holds for derived quantities, which are layers
with a single possible candidate (`diagram_bound.py`). `decoding.integer_program` solves the same problem by
integer programming, which is exact as well, but takes a second and more for each architecture. `decoding.knapsack` is
for one additive constraint.

The results are deterministic, and no function has side effects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .conflicts import explain_conflict
from .constraint import Constraint, Factor, FloatArray, IntArray, Problem, Relaxation
from .diagram_bound import DiagramBound
from .integer_program import likeliest_by_milp
from .surrogate import with_surrogate

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

_FIRST_WIDTH, _LARGEST_WIDTH, _GROWTH = 4096, 2**21, 8
_LARGEST_JOINT_WIDTH = 2**18  # with costs of several layers, a partial architecture takes more memory


def likeliest_satisfying(
    probs: Mapping[str, Tensor], constraints: Sequence[Constraint], count: int = 1
) -> list[dict[str, Any]]:
    """Find the `count` most likely architectures that satisfy all constraints, the most likely one first.

    The layers are added one after the other, for all partial architectures at once. A partial architecture is dropped
    if no choice of the remaining layers satisfies the constraints, or if its bound is below the likelihood of `count`
    known architectures. If there are too many, those with the best bounds are kept first, which finds good
    architectures, and then the search is repeated with more and a surrogate constraint. The result is exact: the last
    pass drops nothing that could be part of it. Where all paths are equally probable, the order of the candidates
    decides, so that what was dropped need not be looked at.

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
    relaxation = None if problem is None else problem.relaxation()
    if problem is None or relaxation is None:
        raise InputError(explain_conflict(probs, constraints))
    tightened, bounded = problem, relaxation
    width, threshold = _FIRST_WIDTH, -np.inf
    while width <= (_LARGEST_WIDTH if not problem.factors and not problem.derived else _LARGEST_JOINT_WIDTH):
        pass_ = _Pass(tightened, bounded, count, width, threshold)
        if pass_.complete:
            if len(pass_.scores) == 0:
                raise InputError(explain_conflict(probs, constraints))
            return [problem.choices(picks) for picks in pass_.picks.tolist()]
        threshold = pass_.threshold
        if tightened is problem:
            tightened, bounded = with_surrogate(problem, relaxation)
        width *= _GROWTH
    if found := likeliest_by_milp(problem, count):
        return found
    raise InputError(explain_conflict(probs, constraints))


def can_be_satisfied(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> bool:
    """Whether some architecture without pruned paths satisfies all constraints; see `likeliest_satisfying`."""
    problem = Problem.of(probs, constraints)
    if problem is None:
        return False
    if len(problem.room) <= 1 and not problem.factors and not problem.derived:  # the cheapest architecture decides
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
        relaxation: Dual solution of its linear relaxation.
        count: Number of architectures that are wanted.
        width: Number of partial architectures that are kept after each layer.
        threshold: Log-likelihood below which architectures are not wanted.

    Attributes:
        picks: Positions of the candidates of the most likely architectures, shape (up to count, L).
        scores: Their log-likelihoods, falling.
        threshold: Log-likelihood of the last of `count` architectures, or the argument if there are fewer.
        complete: Whether nothing was dropped that could be among the `count` most likely architectures.
    """

    def __init__(self, problem: Problem, relaxation: Relaxation, count: int, width: int, threshold: float) -> None:
        room, multipliers = problem.room, relaxation.multipliers
        gains = [logs - costs @ multipliers for logs, costs in zip(problem.logs, problem.costs, strict=True)]
        joint: list[_Joint | DiagramBound] = []
        for factor, shifts in zip(problem.factors, relaxation.shifts, strict=True):
            joint.append(_Joint(factor, multipliers, shifts))
            for layer, shift in zip(factor.layers, shifts, strict=True):
                gains[layer] = gains[layer] + shift
        for quantity, shifts in zip(problem.derived, relaxation.flows, strict=True):
            joint.append(DiagramBound(quantity, problem.labels, shifts, len(room)))
            for layer, shift in zip(joint[-1].layers, shifts, strict=True):
                gains[layer] = gains[layer] + shift[: len(gains[layer])]
        ahead = np.append(np.cumsum([gain.max() for gain in gains][::-1])[::-1][1:], 0.0)
        least = np.cumsum([c.min(axis=0) for c in problem.costs][::-1], axis=0)[::-1]
        least = np.vstack([least[1:], np.zeros((1, len(room)))])
        # Of each partial architecture: its log-likelihood, its part of the bound, and the least that it uses.
        score, used = np.zeros(1), np.zeros((1, len(room))) + sum(factor.least[0] for factor in joint)
        value = np.zeros(1) + float(sum(factor.best[0] for factor in joint))
        picks = np.zeros((1, 0), dtype=np.int16)
        steps: list[tuple[IntArray, IntArray]] = []
        best_dropped, first_dropped = -np.inf, {}
        slack = 1e-9 * max(1.0, abs(threshold)) if np.isfinite(threshold) else 0.0
        for layer, (logs, costs, gain) in enumerate(zip(problem.logs, problem.costs, gains, strict=True)):
            score = (score[:, None] + logs).ravel()  # (states * num_candidates,)
            value = (value[:, None] + gain).ravel()
            used = (used[:, None, :] + costs).reshape(len(score), len(room))
            if joint:
                here = np.tile(np.arange(len(logs), dtype=np.int16), len(picks))
                picks = np.column_stack([np.repeat(picks, len(logs), axis=0), here])
            for each in joint:
                if layer in each.layers:
                    more_value, more_used = each.step(layer, picks)
                    value, used = value + more_value, used + more_used
            possible = np.all(used + least[layer] <= room, axis=1) & np.isfinite(value)
            bound = value + ahead[layer] + room @ multipliers
            kept = np.flatnonzero(possible & (bound >= threshold - slack))
            if len(kept) > width and not joint:
                kept = _best_of_equal_costs(kept, used[kept], score[kept], count)
            if len(kept) > width:  # of equally good ones, the first in the order of their candidates are kept
                order = kept[np.argsort(-np.round(bound[kept], 9), kind="stable")]
                best_dropped = max(best_dropped, float(bound[order[width:]].max()))
                first_dropped[layer] = int(order[width:].min())
                kept = np.sort(order[:width])
            steps.append((kept // len(logs), kept % len(logs)))
            score, value, used = score[kept], value[kept], used[kept]
            picks = picks[kept] if joint else picks
        order = np.argsort(-score, kind="stable")[:count]
        self.scores = score[order]
        self.picks = np.zeros((len(order), len(steps)), dtype=np.int64)
        self.threshold = float(self.scores[-1]) if len(self.scores) == count else threshold
        size = max(1.0, abs(self.threshold))
        equal = self.scores <= self.threshold + 1e-12 * size  # as likely as the last one
        first = True  # whether these come before all that was dropped
        for layer in range(len(steps) - 1, -1, -1):
            parents, chosen = steps[layer]
            self.picks[:, layer] = chosen[order]
            if layer in first_dropped:
                places = parents[order] * len(problem.logs[layer]) + chosen[order]
                first = first and bool(np.all(places[equal] < first_dropped[layer]))
            order = parents[order]
        self.complete = best_dropped == -np.inf or (
            len(self.scores) == count
            and (
                best_dropped < self.threshold - 1e-9 * size or (first and best_dropped <= self.threshold + 1e-12 * size)
            )
        )


def _best_of_equal_costs(states: IntArray, used: FloatArray, scores: FloatArray, count: int) -> IntArray:
    """Return the `count` best of all states that use the same: a rest that suits one of them suits all.

    Args:
        states: Numbers of the states in the order of their candidates, shape (S,).
        used: What they use, shape (S, K).
        scores: Their log-likelihoods, shape (S,).
        count: Number of architectures that are wanted.
    """
    rounded = np.round(used, 12)
    if len(np.unique(rounded.sum(axis=1))) * 2 > len(states):  # hardly any are equal, which is usual
        return states
    group = np.unique(rounded, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((states, -scores, group))
    first = np.searchsorted(group[order], group[order])  # where the group of each begins
    return np.sort(states[order[np.arange(len(states)) - first < count]])


class _Joint:
    """A factor while its layers are chosen one after the other.

    Args:
        factor: Factor.
        multipliers: Multipliers λ of the constraints, shape (K,).
        shifts: Shifts of the bound; see `Relaxation`.

    Attributes:
        layers: Positions of its layers, rising.
        best: For each number j of chosen layers, the best part of the bound by their candidates, of j axes.
        least: For each number j of chosen layers, the least costs by their candidates, of j axes and one of size K.
    """

    def __init__(self, factor: Factor, multipliers: FloatArray, shifts: Sequence[FloatArray]) -> None:
        self.layers = factor.layers
        value = -(factor.costs @ multipliers)
        for axis, shift in enumerate(shifts):
            value = value - shift.reshape([-1 if axis == other else 1 for other in range(len(shifts))])
        self.best, self.least = [value], [factor.costs]
        for _ in shifts:
            self.best.insert(0, self.best[0].max(axis=-1))
            self.least.insert(0, self.least[0].min(axis=-2))

    def step(self, layer: int, picks: npt.NDArray[np.int16]) -> tuple[FloatArray, FloatArray]:
        """Return how the best part of the bound and the least costs change when a layer has been chosen.

        Args:
            layer: Position of the layer.
            picks: Positions of the candidates of each state, shape (states, layers so far).
        """
        known = self.layers.index(layer) + 1
        after = tuple(picks[:, each] for each in self.layers[:known])
        value, used = self.best[known][after], self.least[known][after]
        before = after[:-1]
        if not before:
            return value - self.best[0], used - self.least[0]
        return value - self.best[known - 1][before], used - self.least[known - 1][before]
