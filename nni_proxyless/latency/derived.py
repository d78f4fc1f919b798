"""Quantities that follow from several choices, as decision diagrams.

The width of a cell's output depends on all inputs that its nodes choose, but only through the number of nodes that no
other node uses. Such a quantity has few values, although the choices have many combinations. A multi-valued decision
diagram (Srinivasan, Kam, Malik, Brayton, "Algorithms for discrete function manipulation", ICCAD 1990) says how its
value follows from the choices: it starts in state 0, and the chosen candidate of each layer leads to the next state.

| symbol | here | meaning |
|---|---|---|
| S_j | `len(steps[j])` | number of states before the choice of layer j; S_0 = 1 |
| n_j | `len(steps[j][0])` | number of candidates of layer j |
| z | `places_of` | position of the quantity's value, which is the state after all layers |
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .arrays import FloatArray

if TYPE_CHECKING:  # settings and files are checked without torch
    from random import Random

    from torch import Tensor

IntArray = npt.NDArray[np.int64]
# Value of combinations that the constraints of the space exclude. It is always the last value.
FORBIDDEN = "not a network"


@dataclass(frozen=True)
class Derived:
    """A quantity that follows from the candidates of several layers.

    Attributes:
        name: Name of the quantity, which is not a label of the space.
        labels: Labels of the layers on which it depends, in the order of the diagram.
        steps: For each layer, the next state by state and candidate, shape (S_j, n_j).
        values: Names of its values. The last state is the position of the value. No decoded network has the value
            `FORBIDDEN`.
    """

    name: str
    labels: tuple[str, ...]
    steps: tuple[tuple[tuple[int, ...], ...], ...]
    values: tuple[str, ...]

    @classmethod
    def stepwise(
        cls,
        name: str,
        sizes: Mapping[str, int],
        start: Hashable,
        step: Callable[[Any, int, int], Hashable],
        value: Callable[[Any], str],
    ) -> Derived:
        """Build a diagram from a function that says how a choice changes the state.

        Args:
            name: Name of the quantity.
            sizes: Number of candidates of each layer, by label, in the order of the diagram.
            start: First state; any value that can be compared.
            step: Function of a state, the position of the layer and that of the candidate; returns the next state.
            value: Function that returns the name of the quantity's value in a last state.
        """
        states: list[Any] = [start]
        steps = []
        for layer, size in enumerate(sizes.values()):
            found: dict[Any, int] = {}
            rows = [
                tuple(found.setdefault(step(state, layer, candidate), len(found)) for candidate in range(size))
                for state in states
            ]
            steps.append(tuple(rows))
            states = list(found)
        names = [value(state) for state in states]
        order = {each: place for place, each in enumerate(sorted(set(names), key=_last_forbidden))}
        last = tuple(tuple(order[names[state]] for state in row) for row in steps[-1])
        return cls(name, tuple(sizes), (*steps[:-1], last), tuple(order))

    @classmethod
    def tabulated(cls, name: str, labels: Sequence[str], values: IntArray, names: Sequence[str]) -> Derived:
        """Build the smallest diagram of a quantity whose value is known for each combination of candidates.

        Args:
            name: Name of the quantity.
            labels: Labels of the layers, in the order of the diagram.
            values: Positions of its values in `names`, with an axis for each layer.
            names: Names of values, of which those that never occur are left out.
        """
        order = sorted(range(len(names)), key=lambda place: _last_forbidden(names[place]))
        names = [names[place] for place in order]
        found, state = np.unique(np.argsort(order)[values.ravel()], return_inverse=True)
        state = np.asarray(state, dtype=np.int64).ravel()
        steps: list[tuple[tuple[int, ...], ...]] = []
        for size in reversed(values.shape):
            rows = state.reshape(-1, size)
            key = rows[:, 0].copy()
            for column in rows.T[1:]:  # numbers each different row; a sum of products cannot overflow
                key = np.unique(key * (int(rows.max()) + 1) + column, return_inverse=True)[1].ravel()
            _, first, state = np.unique(key, return_index=True, return_inverse=True)
            state = state.ravel()
            steps.insert(0, tuple(map(tuple, rows[first].tolist())))
        return cls(name, tuple(labels), tuple(steps), tuple(names[place] for place in found.tolist()))

    @cached_property
    def tables(self) -> tuple[IntArray, ...]:
        """The steps as arrays, shape (S_j, n_j)."""
        return tuple(np.array(step, dtype=np.int64) for step in self.steps)

    def places_of(self, places: Mapping[str, Any]) -> Any:
        """Return the position of its value.

        Args:
            places: Position of the chosen candidate of each layer, by label; numbers, or arrays of shape (n,).
        """
        state: Any = 0
        for label, table in zip(self.labels, self.tables, strict=True):
            state = table[state, places[label]]
        return state

    def probs(self, probs: Mapping[str, Tensor]) -> Tensor:
        """Return the probability of each value if the layers are independent, shape (values,); differentiable.

        Args:
            probs: Path probabilities of each layer, shape (n_j,), by label.
        """
        import torch

        first = probs[self.labels[0]]
        states = torch.ones(1, dtype=first.dtype, device=first.device)
        for (label, table), after in zip(zip(self.labels, self.tables, strict=True), self._widths[1:], strict=True):
            arcs = (states[:, None] * probs[label]).reshape(-1)  # (S_j * n_j,)
            target = torch.as_tensor(table.reshape(-1), device=first.device)
            states = torch.zeros(after, dtype=first.dtype, device=first.device).index_add(0, target, arcs)
        return states

    def array_probs(self, probs: Mapping[str, FloatArray]) -> FloatArray:
        """Return the probability of each value; see `probs`."""
        states: FloatArray = np.ones(1)
        for (label, table), after in zip(zip(self.labels, self.tables, strict=True), self._widths[1:], strict=True):
            arcs = (states[:, None] * probs[label]).ravel()
            states = np.asarray(np.bincount(table.ravel(), arcs, minlength=after), dtype=np.float64)
        return states

    def draw(self, value: int, random: Random, given: Mapping[str, int] | None = None) -> dict[str, int] | None:
        """Draw candidates of its layers that give a value, each such combination with equal probability.

        Args:
            value: Position of the value.
            random: Generator.
            given: Positions of candidates that are not drawn, by label.

        Returns:
            Position of the candidate of each layer, by label; `None` if no combination gives the value.
        """
        given = given or {}
        ahead = [np.eye(len(self.values))[value]]  # number of combinations that lead from each state to the value
        for label, table in zip(reversed(self.labels), reversed(self.tables), strict=True):
            counts = ahead[0][table]
            if label in given:
                counts = counts[:, [given[label]]]
            ahead.insert(0, counts.sum(axis=1))
        if not ahead[0][0]:
            return None
        state, found = 0, {}
        for label, table, counts in zip(self.labels, self.tables, ahead[1:], strict=True):
            weights = [
                float(counts[after]) if given.get(label, place) == place else 0.0
                for place, after in enumerate(table[state].tolist())
            ]
            (found[label],) = random.choices(range(len(weights)), weights)
            state = int(table[state, found[label]])
        return found

    def with_candidates(self, kept: Mapping[str, Sequence[int] | IntArray]) -> Derived:
        """Return the same quantity with other lists of candidates.

        Args:
            kept: Positions of the candidates among the former ones, by label.
        """
        tables = (table[:, np.asarray(kept[label])] for label, table in zip(self.labels, self.tables, strict=True))
        return replace(self, steps=tuple(tuple(map(tuple, table.tolist())) for table in tables))

    @property
    def allowed(self) -> int:
        """Number of values that networks may have, which come first."""
        return len(self.values) - (self.values[-1] == FORBIDDEN)

    @property
    def arcs(self) -> int:
        """Number of arcs of the diagram: Σ S_j n_j."""
        return sum(table.size for table in self.tables)

    @property
    def _widths(self) -> list[int]:
        return [*map(len, self.steps), len(self.values)]


def _last_forbidden(name: str) -> tuple[bool, str]:
    return name == FORBIDDEN, name


def flow_rows(
    starts: Mapping[str, int], first: int, quantities: Sequence[Derived]
) -> tuple[list[int], list[int], list[float], int]:
    """Return the equations of an integer programme that tie quantities to candidates; their products must be 0.

    Each arc of a diagram has a variable, and the chosen combination is a flow of 1 from its first state to its value.
    The flow through all arcs of a candidate equals the candidate's variable. For each quantity, the equations of its
    layers come first, then those of its values, and last those of the states between.

    Args:
        starts: Number of the first variable of each layer, and of each quantity, which has one for each allowed value.
        first: Number of the first variable of the arcs, which are ordered by quantity, layer, state and candidate.
        quantities: Quantities.

    Returns:
        Rows, columns and values of the sparse matrix of the equations, and the number of equations.
    """
    rows: list[int] = []
    columns: list[int] = []
    values: list[float] = []
    count = 0

    def add(row: IntArray, column: IntArray, value: float) -> None:
        rows.extend(row.tolist())
        columns.extend(column.tolist())
        values.extend([value] * len(row))

    for quantity in quantities:
        begins = first + np.cumsum([0, *(table.size for table in quantity.tables)])
        for label, table, begin in zip(quantity.labels, quantity.tables, begins.tolist(), strict=False):
            size = table.shape[1]
            arcs = np.arange(table.size)
            add(count + arcs % size, begin + arcs, 1.0)
            add(count + np.arange(size), starts[label] + np.arange(size), -1.0)
            count += size
        ends, allowed = np.arange(quantity.tables[-1].size), np.arange(quantity.allowed)
        add(count + quantity.tables[-1].ravel(), int(begins[-2]) + ends, 1.0)
        add(count + allowed, starts[quantity.name] + allowed, -1.0)
        count += len(quantity.values)
        for layer in range(1, len(quantity.tables)):
            before, table = quantity.tables[layer - 1], quantity.tables[layer]
            add(count + before.ravel(), int(begins[layer - 1]) + np.arange(before.size), 1.0)
            out = np.arange(table.size)
            add(count + out // table.shape[1], int(begins[layer]) + out, -1.0)
            count += len(table)
        first = int(begins[-1])
    return rows, columns, values, count
