"""Constraints on the quantities of a network, and the optimisation problem that they pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..latency.costs import SpaceCosts
from ..latency.derived import Derived
from ..latency.joint_costs import JointCosts, linking_rows, one_of_each
from .layer_order import derived_of, layer_order

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
    def largest(self) -> float:
        """Largest value of any network; for a maximum of costs of several layers, a bound on it."""
        if self.combine == "sum":
            return self.costs.largest
        return max(self.costs.entries())

    def holds(self, value: float) -> bool:
        """Whether a value is within the limit, apart from rounding errors."""
        return value <= self.limit + abs(self.limit) * _TOLERANCE


def limits_and_values(constraints: Sequence[Constraint], choices: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the tightest limit on each quantity, and the value of an architecture, by the name of the quantity.

    Args:
        constraints: Constraints, of which several may be on one quantity.
        choices: Mapping from labels to candidates.
    """
    tightest: dict[str, Constraint] = {}
    for constraint in constraints:
        known = tightest.get(constraint.name)
        if known is None or constraint.limit < known.limit:
            tightest[constraint.name] = constraint
    return {name: {"limit": one.limit, "value": one.of(choices)} for name, one in tightest.items()}


def excluding(constraint: Constraint) -> Constraint:
    """Return the additive constraint that excludes the combinations that exceed a maximum.

    Args:
        constraint: Constraint of the kind `max`. Single candidates that exceed it are left to `open_candidates`.

    Returns:
        Constraint on the number of combinations above the limit, which must be 0.
    """
    above = constraint.limit + abs(constraint.limit) * _TOLERANCE
    joint = tuple(
        JointCosts(labels, tuple((values > above).astype(np.float64).ravel().tolist()))
        for labels, values in constraint.costs.joint_arrays
        if (values > above).any()
    )
    layers = {label: (0.0,) * len(values) for label, values in constraint.costs.layers.items()}
    return replace(
        constraint, limit=0.5, costs=replace(constraint.costs, fixed=0.0, layers=layers, joint=joint), combine="sum"
    )


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
                for labels, joint in constraint.costs.joint_arrays:  # of which no combination is within the limit
                    if label in labels:
                        least = joint.min(axis=tuple(axis for axis, each in enumerate(labels) if each != label))
                        left &= least <= constraint.limit + abs(constraint.limit) * _TOLERANCE
        found[label] = np.flatnonzero(left)
    return found


@dataclass(frozen=True)
class Factor:
    """Costs of several layers at once.

    Attributes:
        layers: Positions of the layers.
        costs: Costs as parts of the limits, with one axis for each layer, and one of size K.
    """

    layers: tuple[int, ...]
    costs: FloatArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of candidates of each layer."""
        return self.costs.shape[:-1]


@dataclass(frozen=True)
class Relaxation:
    """Dual solution of a problem's linear relaxation, which bounds the likelihood of every partial architecture.

    Attributes:
        multipliers: Multipliers λ of the constraints in nats per unit of the scaled costs, at least 0, shape (K,).
        shifts: For each factor and each of its layers, what the bound counts to the candidates of the layer instead of
            the factor, in nats, shape (num_candidates,). Any values are valid; the dual ones give the best bound.
        flows: The same for each derived quantity, for its layers and then for its values.
    """

    multipliers: FloatArray
    shifts: tuple[tuple[FloatArray, ...], ...] = ()
    flows: tuple[tuple[FloatArray, ...], ...] = ()


@dataclass(frozen=True)
class Problem:
    """Arrays of a multiple-choice knapsack problem with L layers and K additive constraints.

    Attributes:
        labels: Labels of the layers. With factors, those of one factor follow each other as far as possible. Derived
            quantities are layers, too, which come after those they follow from. Their values have the probability 1.
        names: Candidates that are left, by layer.
        logs: Logarithms of their probabilities, by layer, shape (num_candidates,).
        costs: Their costs as parts of `room`, by layer, shape (num_candidates, K). After the additive constraints come
            those that exclude combinations (`excluding`).
        room: What the limits leave for the layers, as parts of the limits, shape (K,).
        factors: Costs of several layers at once; none for most problems.
        natural: The labels in the order of the space, without derived quantities.
        derived: Derived quantities, for the candidates that are left.
    """

    labels: tuple[str, ...]
    names: tuple[tuple[Any, ...], ...]
    logs: tuple[FloatArray, ...]
    costs: tuple[FloatArray, ...]
    room: FloatArray = field(default_factory=lambda: np.zeros(0))
    factors: tuple[Factor, ...] = ()
    natural: tuple[str, ...] = ()
    derived: tuple[Derived, ...] = ()

    @classmethod
    def of(cls, probs: Mapping[str, Tensor], constraints: Sequence[Constraint]) -> Problem | None:
        """Create the problem; return `None` if a constraint of the kind `max` leaves a layer without candidates."""
        left = open_candidates(probs, constraints)
        added = [c for c in constraints if c.combine == "sum"]
        added += [excluding(c) for c in constraints if c.combine == "max" and (c.costs.joint or c.costs.derived)]
        derived, natural = derived_of([(c.name, c.costs) for c in added]), tuple(left)
        left |= {quantity.name: np.arange(quantity.allowed) for quantity in derived}
        left = {label: left[label] for label in layer_order(list(left), [c.costs for c in added], derived)}
        if any(len(kept) == 0 for kept in left.values()):
            return None
        if any(not c.holds(c.costs.fixed) for c in constraints if c.combine == "max"):
            return None
        candidates = {**constraints[0].costs.candidates, **{quantity.name: quantity.values for quantity in derived}}
        logs, costs, names = [], [], []
        # Scaled to 1, so that all constraints have the same weight in the solver's tolerances.
        scale = np.array([1.0 / abs(c.limit) if c.limit else 1.0 for c in added])
        for label, kept in left.items():
            p = probs[label].detach().double().cpu().numpy()[kept] if label in probs else np.ones(len(kept))
            logs.append(np.log(np.maximum(p, 1e-300)))
            of_layer = [c.costs.layers[label] if label in probs else (0.0,) * len(kept) for c in added]
            values = np.array([[of[i] for of in of_layer] for i in kept], dtype=np.float64)
            costs.append(values.reshape(len(kept), len(added)) * scale)
            names.append(tuple(candidates[label][i] for i in kept))
        room = np.array([(c.limit - c.costs.fixed + abs(c.limit) * _TOLERANCE) for c in added]) * scale
        factors = _factors(added, left, scale)
        return cls(
            tuple(left), tuple(names), tuple(logs), tuple(costs), room.reshape(len(added)), factors, natural,
            tuple(quantity.with_candidates(left) for quantity in derived),
        )  # fmt: skip

    @property
    def sizes(self) -> list[int]:
        """Number of candidates of each layer."""
        return [len(log_p) for log_p in self.logs]

    @property
    def combinations(self) -> int:
        """Number of variables of the integer programme that stand for combinations of candidates."""
        return sum(int(np.prod(factor.shape)) for factor in self.factors)

    @property
    def arcs(self) -> int:
        """Number of variables of the integer programme that stand for arcs of the derived quantities' diagrams."""
        return sum(quantity.arcs for quantity in self.derived)

    @property
    def flat_logs(self) -> FloatArray:
        """Log-likelihoods of all candidates of all layers, then 0 for each combination and each arc, shape (total,)."""
        return np.concatenate([*self.logs, np.zeros(self.combinations + self.arcs)])

    @property
    def flat_costs(self) -> FloatArray:
        """Costs of all candidates of all layers, then of all combinations and arcs, shape (K, total)."""
        joint = [factor.costs.reshape(-1, len(self.room)) for factor in self.factors]
        return np.concatenate([*self.costs, *joint, np.zeros((self.arcs, len(self.room)))]).T

    def one_of_each(self) -> Any:
        """Return the sparse matrix that sums the candidates of each layer, shape (L, total)."""
        return one_of_each(self.sizes, self.combinations + self.arcs)

    def links(self) -> Any:
        """Return the sparse matrix of the equations of combinations, or `None`; see `joint_costs.linking_rows`."""
        if not self.factors and not self.derived:
            return None
        sizes = dict(zip(self.labels, self.sizes, strict=True))
        return linking_rows(sizes, [(factor.layers, factor.shape) for factor in self.factors], self.derived)

    def used(self, picks: Sequence[int]) -> FloatArray:
        """Return what an architecture takes of the room, given the candidate's position in each layer, shape (K,)."""
        used: FloatArray = np.zeros(len(self.room)) + np.sum(
            [costs[i] for costs, i in zip(self.costs, picks, strict=True)], axis=0
        )
        for factor in self.factors:
            used = used + factor.costs[tuple(picks[layer] for layer in factor.layers)]
        return used

    def relaxation(self) -> Relaxation | None:
        """Solve the linear relaxation; return `None` if not even a mixture of architectures keeps the constraints."""
        ends = [[*(len(table[0]) for table in d.steps), len(d.values)] for d in self.derived]
        free = Relaxation(
            np.zeros(len(self.room)),
            tuple(tuple(map(np.zeros, f.shape)) for f in self.factors),
            tuple(tuple(map(np.zeros, sizes)) for sizes in ends),
        )
        if len(self.room) == 0:
            return free
        least = [c.min(axis=0) for c in self.costs]
        least += [f.costs.reshape(-1, len(self.room)).min(axis=0) for f in self.factors]
        if any(np.sum(least, axis=0) > self.room):
            return None
        from scipy.optimize import linprog
        from scipy.sparse import vstack

        equations, values = self.one_of_each(), np.ones(len(self.labels))
        if (links := self.links()) is not None:
            equations = vstack([equations, links], format="csr")
            values = np.append(values, np.zeros(links.shape[0]))
        solved = linprog(
            -self.flat_logs,
            A_ub=self.flat_costs,
            b_ub=self.room,
            A_eq=equations,
            b_eq=values,
            bounds=(0, 1),
            method="highs",
        )
        if solved.status == 2:  # infeasible
            return None
        if solved.status != 0:  # any multipliers give valid bounds, only weaker ones
            return free
        multipliers = np.maximum(-np.asarray(solved.ineqlin.marginals, dtype=np.float64), 0.0)
        duals, shifts, start = np.asarray(solved.eqlin.marginals, dtype=np.float64), [], len(self.labels)
        between = [0] * len(self.factors) + [sum(map(len, d.steps[1:])) for d in self.derived]  # rows of states
        for sizes, more in zip([*(factor.shape for factor in self.factors), *ends], between, strict=True):
            places = start + np.cumsum([0, *sizes])
            shifts.append(tuple(-duals[a:b] for a, b in pairwise(places.tolist())))
            start = int(places[-1]) + more
        return Relaxation(multipliers, tuple(shifts[: len(self.factors)]), tuple(shifts[len(self.factors) :]))

    def choices(self, picks: Sequence[int]) -> dict[str, Any]:
        """Return the architecture of a candidate's position in each layer."""
        chosen = {label: names[pick] for label, names, pick in zip(self.labels, self.names, picks, strict=True)}
        return {label: chosen[label] for label in self.natural}


def _factors(added: Sequence[Constraint], left: Mapping[str, IntArray], scale: FloatArray) -> tuple[Factor, ...]:
    """Collect the joint costs of additive constraints, those of the same layers in one factor."""
    order = {label: place for place, label in enumerate(left)}
    found: dict[tuple[str, ...], FloatArray] = {}
    for k, constraint in enumerate(added):
        for labels, values in constraint.costs.joint_arrays:
            kept = values[np.ix_(*(left[label] for label in labels))]
            by_order = sorted(range(len(labels)), key=lambda axis: order[labels[axis]])
            key = tuple(labels[axis] for axis in by_order)
            costs = found.setdefault(key, np.zeros((*(len(left[label]) for label in key), len(added))))
            costs[..., k] += kept.transpose(by_order) * scale[k]
    return tuple(Factor(tuple(order[label] for label in labels), costs) for labels, costs in found.items())


def _labels(constraints: Sequence[Constraint]) -> list[str]:
    labels = list(constraints[0].costs.layers)
    for other in constraints[1:]:
        if set(other.costs.layers) != set(labels):
            raise InputError(f"'{other.name}' and '{constraints[0].name}' have costs of different layers")
    return labels
