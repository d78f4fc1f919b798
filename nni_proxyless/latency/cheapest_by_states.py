"""The cheapest network of a space whose costs depend on derived quantities of the same layers, by dynamic programming.

The linear relaxation of the integer programme in `joint_costs.py` does not know which values of the quantities occur
together, so the programme may take long. Here, the joint state of all diagrams is followed through the layers,
and of all partial networks in the same joint state only the cheapest one is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from .arrays import FloatArray
from .derived import Derived, IntArray

_MOST_STATES = 2**22
_MOST_COMBINATIONS = 2**16


def cheapest_by_states(
    layers: Mapping[str, FloatArray],
    factors: Sequence[tuple[Sequence[int], FloatArray]],
    quantities: Sequence[Derived],
) -> list[int] | None:
    """Find the network with the smallest sum of costs; see `joint_costs.cheapest`.

    Returns:
        Position of the chosen candidate of each layer; `None` if the quantities follow from different layers, or a cost
        depends on several quantities, or on a layer and a quantity that follows from it.
    """
    names = [quantity.name for quantity in quantities]
    order = list(layers)
    if not quantities or any(quantity.labels != quantities[0].labels for quantity in quantities):
        return None
    behind = quantities[0].labels
    owner: dict[str, str] = {}  # the quantity to which a free layer belongs
    parts: dict[str, list[tuple[list[str], FloatArray]]] = {name: [] for name in names}
    for where, values in factors:
        labels = [order[place] for place in where]
        own = [label for label in labels if label in names]
        free = [label for label in labels if label not in names]
        if len(own) != 1 or any(label in behind or owner.setdefault(label, own[0]) != own[0] for label in free):
            return None
        parts[own[0]].append((labels, values))
    best: dict[str, tuple[FloatArray, IntArray]] = {}
    for quantity in quantities:
        free = [label for label, of in owner.items() if of == quantity.name]
        if math.prod(len(layers[label]) for label in free) > _MOST_COMBINATIONS:
            return None
        best[quantity.name] = _best_of_free(quantity, free, layers, parts[quantity.name])
    path = _cheapest_path(quantities, [layers[label] for label in behind], [best[name][0] for name in names])
    if path is None:
        return None
    places = dict(zip(behind, path, strict=True))
    for quantity in quantities:
        free = [label for label, of in owner.items() if of == quantity.name]
        row = int(best[quantity.name][1][quantity.places_of(places)])
        picks = list(itertools.product(*(range(len(layers[label])) for label in free)))[row]
        places |= dict(zip(free, picks, strict=True))
        places[quantity.name] = int(quantity.places_of(places))
    return [places[label] if label in places else int(layers[label].argmin()) for label in order]


def _best_of_free(
    quantity: Derived,
    free: Sequence[str],
    layers: Mapping[str, FloatArray],
    parts: Sequence[tuple[list[str], FloatArray]],
) -> tuple[FloatArray, IntArray]:
    """Return the smallest cost of its free layers by value, and the number of the combination that has it."""
    axes = {label: axis for axis, label in enumerate([quantity.name, *free])}
    total = np.zeros([quantity.allowed, *(len(layers[label]) for label in free)])
    for labels, values in [*parts, *(([label], layers[label]) for label in free)]:
        ordered = sorted(range(len(labels)), key=lambda axis: axes[labels[axis]])
        shape = [total.shape[axis] if label in labels else 1 for label, axis in axes.items()]
        total = total + values.transpose(ordered).reshape(shape)
    flat = total.reshape(quantity.allowed, -1)
    return flat.min(axis=1), flat.argmin(axis=1)


def _cheapest_path(
    quantities: Sequence[Derived], layers: Sequence[FloatArray], ends: Sequence[FloatArray]
) -> list[int] | None:
    """Find the candidates whose costs and values' costs are smallest, or `None` if there are too many states."""
    states, cost = np.zeros((1, len(quantities)), dtype=np.int64), np.zeros(1)
    steps: list[tuple[IntArray, IntArray]] = []
    for number, layer in enumerate(layers):
        if len(states) * len(layer) > _MOST_STATES:
            return None
        after = [q.tables[number][states[:, k]].ravel() for k, q in enumerate(quantities)]
        reached, total = np.stack(after, axis=1), (cost[:, None] + layer).ravel()
        key = np.zeros(len(total), dtype=np.int64)
        for column in reached.T:  # numbers each different joint state
            key = np.unique(key * (int(column.max()) + 1) + column, return_inverse=True)[1].ravel()
        order = np.lexsort((total, key))
        kept = order[np.append(True, np.diff(key[order]) > 0)]
        steps.append((kept // len(layer), kept % len(layer)))
        states, cost = reached[kept], total[kept]
    for k, (quantity, end) in enumerate(zip(quantities, ends, strict=True)):
        padded = np.append(end, [np.inf] * (len(quantity.values) - quantity.allowed))
        cost = cost + padded[states[:, k]]
    state, path = int(cost.argmin()), []
    for parents, chosen in reversed(steps):
        path.append(int(chosen[state]))
        state = int(parents[state])
    return path[::-1]
