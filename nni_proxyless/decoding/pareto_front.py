"""Fronts in several quantities: the networks that no other network beats in likelihood, latencies, memory or size.

The front of a space of independent layers is found by dynamic programming. After each layer, only those partial
architectures are kept that no other one beats. Whatever the remaining layers are, a dropped one cannot be part of the
front, because sums and maxima keep the order. So the front is exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError
from .conflicts import explain_conflict
from .constraint import Constraint, FloatArray, IntArray, open_candidates
from .pareto import non_dominated

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

LIKELIHOOD = "likelihood"
# Largest number of partial architectures after a layer, with up to three quantities and with more.
_MOST_PARTIAL = (300_000, 60_000)


@dataclass(frozen=True)
class FrontNetwork:
    """Architecture that no other architecture beats in all quantities of a front.

    Attributes:
        choices: Mapping from labels to candidates.
        values: Quantities of the front by name, in their units; `likelihood` is the natural logarithm of the
            architecture's probability.
    """

    choices: dict[str, Any]
    values: dict[str, float]


def pareto_front(
    probs: Mapping[str, Tensor], names: Sequence[str], quantities: Sequence[Constraint]
) -> list[FrontNetwork]:
    """Find the exact front in some quantities, within budgets.

    Args:
        probs: Path probabilities of each label, shape (num_candidates,). Paths with probability 0 (pruned paths) are
            not chosen.
        names: Quantities of the front: `likelihood`, which is to be large, and names in `quantities`, which are to be
            small.
        quantities: Quantities with their limits, which are infinite where there is no budget. Those that are not in
            `names` are budgets only. A name may occur twice, with different limits.

    Returns:
        Networks of the front, in the order of the named quantities. Of networks that are equal in all of them, one is
        returned: the most likely one, unless three quantities without `likelihood` are named.

    Raises:
        InputError: No network is within the budgets, the front is too large to be enumerated, or a quantity has costs
            of several layers at once.
    """
    if joint := [quantity.name for quantity in quantities if quantity.costs.joint]:
        raise InputError(
            f"a front needs quantities that are sums over single layers, and '{joint[0]}' has costs of several layers "
            "at once; decode within single budgets instead"
        )
    rows = {quantity.name: quantity for quantity in reversed(quantities)}
    limits = [quantity for quantity in quantities if np.isfinite(quantity.limit)]
    # A maximum with a limit excludes candidates, and needs no coordinate of its own.
    used = [row for name, row in rows.items() if name in names or (row in limits and row.combine == "sum")]
    states = _States(probs, used, limits, likelihood=LIKELIHOOD in names or len(used) <= 2)
    columns = {row.name: states.points[:, number] for number, row in enumerate(used)}
    # Of equal networks, the filter keeps the first one, which here is the most likely one.
    likeliest = np.argsort(states.points[:, -1], kind="stable")
    columns[LIKELIHOOD] = states.points[:, -1]
    kept = likeliest[non_dominated(np.stack([columns[name][likeliest] for name in names], axis=1))]
    found = []
    for state in kept.tolist():
        values = {name: float(columns[name][state]) for name in names}
        if LIKELIHOOD in values:
            values[LIKELIHOOD] *= -1.0
        found.append(FrontNetwork(states.choices(state), values))
    return found


def spread(networks: Sequence[FrontNetwork], count: int) -> list[int]:
    """Choose networks that are spread over a front: those at its ends first, then the ones farthest from the chosen.

    Distances are those of the ranks in each quantity.

    Args:
        networks: Networks of a front.
        count: Number of networks.

    Returns:
        Positions of up to `count` networks, rising.
    """
    if len(networks) <= count:
        return list(range(len(networks)))
    values = np.array([list(network.values.values()) for network in networks])
    ranks = np.stack([np.unique(column, return_inverse=True)[1].ravel() for column in values.T], axis=1)
    places = ranks / np.maximum(ranks.max(axis=0), 1)
    ends = dict.fromkeys([*places.argmin(axis=0).tolist(), *places.argmax(axis=0).tolist()])
    chosen = list(ends)[:count]
    distance = np.min([((places - places[one]) ** 2).sum(axis=1) for one in chosen], axis=0)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((places - places[chosen[-1]]) ** 2).sum(axis=1))
    return sorted(chosen)


class _States:
    """The dynamic programme. A state is a partial architecture, from the first layer to the current one.

    Args:
        probs: Path probabilities of each label, shape (num_candidates,).
        quantities: Quantities of which the states keep the front.
        limits: Budgets.
        likelihood: Whether the likelihood belongs to the quantities.

    Attributes:
        points: Quantities of each kept architecture, and its negative log-likelihood if `likelihood`, shape
            (states, columns).
    """

    def __init__(
        self,
        probs: Mapping[str, Tensor],
        quantities: Sequence[Constraint],
        limits: Sequence[Constraint],
        *,
        likelihood: bool,
    ) -> None:
        every = [*quantities, *limits]
        self._candidates = every[0].costs.candidates
        left = open_candidates(probs, every)
        conflict = any(len(kept) == 0 for kept in left.values()) or any(not q.holds(q.costs.fixed) for q in limits)
        if conflict:
            raise InputError(explain_conflict(probs, limits))
        self._left = left
        end = [True] if likelihood else []
        added = np.array([q.combine == "sum" for q in quantities] + end)
        layers = []
        for label, kept in left.items():
            logs = np.log(np.maximum(probs[label].detach().double().cpu().numpy()[kept], 1e-300))
            columns = [np.asarray(q.costs.layers[label], dtype=np.float64)[kept] for q in quantities]
            layers.append(np.stack([*columns, -logs][: len(added)], axis=1))  # (num_candidates, columns)
        room = np.array([_limit_of(q.name, limits) for q in quantities] + [np.inf for _ in end])
        ahead = np.cumsum([layer.min(axis=0) for layer in layers][::-1], axis=0)[::-1]
        ahead = np.vstack([ahead[1:], np.zeros((1, len(room)))]) * added
        points = np.array([[q.costs.fixed for q in quantities] + [0.0 for _ in end]])
        most = _MOST_PARTIAL[len(room) > 3]
        self._steps: list[tuple[IntArray, IntArray]] = []
        for layer, least in zip(layers, ahead, strict=True):
            points = _joined(points, layer, added)
            possible = np.flatnonzero(np.all(points + least <= room, axis=1))
            kept = possible[non_dominated(points[possible])]
            if len(kept) > most:
                names = ", ".join([q.name for q in quantities] + [LIKELIHOOD for _ in end])
                raise InputError(
                    f"the front of {names} is too large, with more than {most} partial networks; narrow it by budgets "
                    "on these quantities, or name fewer"
                )
            self._steps.append((kept // len(layer), kept % len(layer)))
            points = points[kept]
        if len(points) == 0:
            raise InputError(explain_conflict(probs, limits))
        self.points: FloatArray = points

    def choices(self, state: int) -> dict[str, Any]:
        """Return the architecture of a state, as a mapping from labels to candidates."""
        picks = []
        for (parents, chosen), kept in zip(reversed(self._steps), reversed(self._left.values()), strict=True):
            picks.append(int(kept[chosen[state]]))
            state = int(parents[state])
        return {label: self._candidates[label][i] for label, i in zip(self._left, reversed(picks), strict=True)}


def _joined(points: FloatArray, layer: FloatArray, added: Any) -> FloatArray:
    """Join each partial architecture with each candidate of a layer, shape (states * num_candidates, quantities)."""
    joined = points[:, None, :] + layer
    largest = np.maximum(points[:, None, :], layer)
    return np.asarray(np.where(added, joined, largest)).reshape(-1, points.shape[1])


def _limit_of(name: str, limits: Sequence[Constraint]) -> float:
    """Smallest limit of a quantity, with the tolerance of `Constraint.holds`."""
    return min((q.limit + abs(q.limit) * 1e-12 for q in limits if q.name == name), default=np.inf)
