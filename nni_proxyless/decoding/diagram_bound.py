"""A derived quantity while the layers from which it follows are chosen one after the other.

The quantity itself has no cost. However, the bound of a partial architecture adds a shift to each candidate of the
quantity's layers and to each of its values. The bound must subtract the shifts of the chosen candidates and of the best
possible rest of the diagram.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..latency.derived import Derived
from .constraint import FloatArray


class DiagramBound:
    """Bound of one derived quantity.

    Layers that are chosen before an earlier layer of the diagram count when that one has been chosen, too. Until then,
    the best of their candidates counts, so the bound is valid in any order.

    Args:
        quantity: Derived quantity, for the candidates that are left.
        labels: Labels of all layers in the order in which they are chosen.
        shifts: Shifts of its layers and of its values; see `Relaxation`.
        dims: Number K of constraints.

    Attributes:
        layers: Positions of its layers, in the order of the diagram, and its own position.
        best: Best part of the bound of the whole diagram.
        least: Its least costs by the number of chosen layers, which are 0.
    """

    def __init__(self, quantity: Derived, labels: Sequence[str], shifts: Sequence[FloatArray], dims: int) -> None:
        self.layers = tuple(labels.index(label) for label in (*quantity.labels, quantity.name))
        self.least = [np.zeros(dims)]
        self._tables, self._shifts, self._dims = quantity.tables, shifts, dims
        # For each number of chosen layers, the best rest by state.
        self._rest: list[FloatArray] = [np.where(np.arange(len(shifts[-1])) < quantity.allowed, -shifts[-1], -np.inf)]
        for table, shift in zip(reversed(self._tables), reversed(shifts[:-1]), strict=True):
            self._rest.insert(0, (self._rest[0][table] - shift).max(axis=1))
        self.best: list[Any] = [float(self._rest[0][0])]

    def step(self, layer: int, picks: npt.NDArray[np.int16]) -> tuple[FloatArray, FloatArray]:
        """Return how the bound and the least costs change when a layer has been chosen; see `constraints._Joint`.

        A partial architecture whose value is not the one that follows from its layers gets the bound -∞.

        Args:
            layer: Position of the layer.
            picks: Positions of the candidates of each state, shape (states, layers so far).
        """
        after, before = self._value(layer, picks), self._value(layer - 1, picks)
        change = np.where(np.isfinite(after), after - np.where(np.isfinite(before), before, 0.0), -np.inf)
        return change, np.zeros((len(picks), self._dims))

    def _value(self, chosen: int, picks: npt.NDArray[np.int16]) -> FloatArray:
        """Part of the bound if the layers up to the position `chosen` are known."""
        state = np.zeros(len(picks), dtype=np.int64)
        value = np.zeros(len(picks))
        known = 0
        for place, table, shift in zip(self.layers, self._tables, self._shifts, strict=False):
            if place > chosen:
                break
            picked = picks[:, place]
            state, value, known = table[state, picked], value - shift[picked], known + 1
        if known == len(self._tables) and self.layers[-1] <= chosen:
            right = picks[:, self.layers[-1]] == state
            return np.where(right, value - self._shifts[-1][state], -np.inf)
        return value + self._rest[known][state]
