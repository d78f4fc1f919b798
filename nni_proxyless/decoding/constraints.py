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
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..latency.costs import SpaceCosts

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Combine = Literal["sum", "max"]

# The tolerance covers rounding errors, because the cost of an architecture may add the layers in another order.
_TOLERANCE = 1e-12
_FIRST_WIDTH, _LARGEST_WIDTH, _GROWTH = 4096, 2**21, 8


@dataclass(frozen=True)
class Constraint:
    """Upper limit on one quantity of a network.

    Attributes:
        name: Name of the quantity, such as a target or `parameters`.
        limit: Largest allowed value, in the unit of `costs`.
        costs: Value of each candidate of each layer, and `fixed`, the value of the operators of every network.
        combine: Whether the values of the layers add up (`sum`), or the largest one counts (`max`), as for peak memory.
    """

    name: str
    limit: float
    costs: SpaceCosts
    combine: Combine = "sum"

    def of(self, choices: Mapping[str, Any]) -> float:
        """Compute the quantity of one architecture, in the unit of `costs`.

        Args:
            choices: Mapping from labels to candidates.

        Raises:
            InputError: A label is missing or a candidate does not exist.
        """
        if self.combine == "sum":
            return self.costs.of(choices)
        return self.costs.largest_of(choices)

    @property
    def smallest(self) -> float:
        """Smallest value of any network."""
        if self.combine == "sum":
            return self.costs.smallest
        return max([self.costs.fixed, *(min(values) for values in self.costs.layers.values())])

    @property
    def largest(self) -> float:
        """Largest value of any network."""
        if self.combine == "sum":
            return self.costs.largest
        return max([self.costs.fixed, *(max(values) for values in self.costs.layers.values())])

    def holds(self, value: float) -> bool:
        """Whether a value is within the limit, apart from rounding errors."""
        return value <= self.limit + abs(self.limit) * _TOLERANCE


def open_candidates(probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> dict[str, IntArray]:
    """Find the candidates of each layer that are not pruned and exceed no constraint of the kind `max`.

    Args:
        probs: Path probabilities of each label, shape (num_candidates,). Paths with probability 0 were pruned.
        constraints: Constraints.

    Returns:
        Positions of the candidates by label; empty if none of a layer is left.
    """
    found = {}
    for label in _labels(constraints):
        left = probs[label].detach().cpu().numpy() > 0
        for constraint in constraints:
            if constraint.combine == "max":
                values = np.asarray(constraint.costs.layers[label], dtype=np.float64)
                left &= values <= constraint.limit + abs(constraint.limit) * _TOLERANCE
        found[label] = np.flatnonzero(left)
    return found


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
    from .integer_program import explain_conflict, likeliest_by_milp

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
    return likeliest_by_milp(problem, count)


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


@dataclass(frozen=True)
class Problem:
    """Arrays of a multiple-choice knapsack problem with L layers and K additive constraints.

    Attributes:
        labels: Labels of the layers.
        names: Candidates that are left, by layer.
        logs: Logarithms of their probabilities, by layer, shape (num_candidates,).
        costs: Their costs as parts of `room`, by layer, shape (num_candidates, K).
        fixed: Costs of every network as parts of the limits, shape (K,).
        limits: Limits as parts of themselves: 1, or 0 for a limit of 0, shape (K,).
    """

    labels: tuple[str, ...]
    names: tuple[tuple[Any, ...], ...]
    logs: tuple[FloatArray, ...]
    costs: tuple[FloatArray, ...]
    room: FloatArray = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> Problem | None:
        """Create the problem; return `None` if a constraint of the kind `max` leaves a layer without candidates."""
        left = open_candidates(probs, constraints)
        if any(len(kept) == 0 for kept in left.values()):
            return None
        if any(not c.holds(c.costs.fixed) for c in constraints if c.combine == "max"):
            return None
        candidates = constraints[0].costs.candidates
        logs, costs, names = [], [], []
        added = [c for c in constraints if c.combine == "sum"]
        # Scaled to 1, so that all constraints have the same weight in the solver's tolerances.
        scale = np.array([1.0 / abs(c.limit) if c.limit else 1.0 for c in added])
        for label, kept in left.items():
            p = probs[label].detach().to(torch.float64).cpu().numpy()[kept]
            logs.append(np.log(np.maximum(p, 1e-300)))
            values = np.array([[c.costs.layers[label][i] for c in added] for i in kept], dtype=np.float64)
            costs.append(values.reshape(len(kept), len(added)) * scale)
            names.append(tuple(candidates[label][i] for i in kept))
        room = np.array([(c.limit - c.costs.fixed + abs(c.limit) * _TOLERANCE) for c in added]) * scale
        return cls(tuple(left), tuple(names), tuple(logs), tuple(costs), room.reshape(len(added)))

    @property
    def flat_logs(self) -> FloatArray:
        """Log-likelihoods of all candidates of all layers, shape (total,)."""
        return np.concatenate(self.logs)

    @property
    def flat_costs(self) -> FloatArray:
        """Costs of all candidates of all layers, shape (K, total)."""
        return np.concatenate(self.costs).T

    def one_of_each(self) -> Any:
        """Return the sparse matrix that sums the candidates of each layer, shape (L, total)."""
        from scipy.sparse import block_diag

        return block_diag([np.ones((1, len(log_p))) for log_p in self.logs], format="csr")

    def multipliers(self) -> FloatArray | None:
        """Solve the linear relaxation, and return the multipliers of the constraints, shape (K,).

        Returns:
            Multipliers in nats per unit of the scaled costs, at least 0; `None` if not even a mixture of architectures
            satisfies the constraints.
        """
        if len(self.room) == 0:
            return np.zeros(0)
        if any(np.sum([c.min(axis=0) for c in self.costs], axis=0) > self.room):
            return None
        from scipy.optimize import linprog

        solved = linprog(
            -self.flat_logs,
            A_ub=self.flat_costs,
            b_ub=self.room,
            A_eq=self.one_of_each(),
            b_eq=np.ones(len(self.labels)),
            bounds=(0, 1),
            method="highs",
        )
        if solved.status == 2:  # infeasible
            return None
        if solved.status != 0:  # any multipliers give valid bounds, only weaker ones
            return np.zeros(len(self.room))
        return np.maximum(-np.asarray(solved.ineqlin.marginals, dtype=np.float64), 0.0)

    def choices(self, picks: Sequence[int]) -> dict[str, Any]:
        """Return the architecture of a candidate's position in each layer."""
        return {label: names[pick] for label, names, pick in zip(self.labels, self.names, picks, strict=True)}


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
            used = (used[:, None, :] + costs).reshape(len(score), -1)
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


def _labels(constraints: Sequence[Constraint]) -> list[str]:
    labels = list(constraints[0].costs.layers)
    for other in constraints[1:]:
        if set(other.costs.layers) != set(labels):
            raise InputError(f"'{other.name}' and '{constraints[0].name}' have costs of different layers")
    return labels
