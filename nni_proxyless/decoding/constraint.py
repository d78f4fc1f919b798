"""Constraints on the quantities of a network, and the optimisation problem that they pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..latency.costs import SpaceCosts

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Combine = Literal["sum", "max"]

# The tolerance covers rounding errors, because the cost of an architecture may add the layers in another order.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Constraint:
    """Upper limit on one quantity of a network.

    Attributes:
        name: Name of the quantity, such as a target or `parameters`.
        limit: Largest allowed value, in the unit of `costs`.
        costs: Value of each candidate of each layer, and `fixed`, the value of the operators of every network.
        combine: Whether the values of the layers add up (`sum`), or the largest one counts (`max`), as for peak memory.
        fraction: The limit as a part of the largest network's value, if it was stated like that; else `None`.
    """

    name: str
    limit: float
    costs: SpaceCosts
    combine: Combine = "sum"
    fraction: float | None = None

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
            p = probs[label].detach().double().cpu().numpy()[kept]
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


def _labels(constraints: Sequence[Constraint]) -> list[str]:
    labels = list(constraints[0].costs.layers)
    for other in constraints[1:]:
        if set(other.costs.layers) != set(labels):
            raise InputError(f"'{other.name}' and '{constraints[0].name}' have costs of different layers")
    return labels
