"""Costs that depend on the candidates of several layers at once, and the cheapest network of a space that has them.

A convolution between two chosen widths costs what no sum over single choices gives. Its costs are an array with one
axis for each choice. The cheapest network is found by an integer programme, solved by SciPy's HiGHS: each candidate has
a binary variable x, and each combination t of an array has a variable y_t. For each axis and candidate i, the sum of
y_t over all t with that candidate equals x_i. So the y of the chosen combination is 1, and all others are 0 (the local
polytope of a factor graph; Wainwright, Jordan, "Graphical Models, Exponential Families, and Variational Inference",
2008, section 4.1).

Costs may also depend on a quantity that follows from many choices (`derived.py`). It is treated like a layer, whose
candidates are its values, and a flow through its diagram ties it to the choices.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import RunError
from .arrays import FloatArray
from .derived import Derived, flow_rows


@dataclass(frozen=True)
class JointCosts:
    """Costs of all combinations of the candidates of some layers.

    Attributes:
        labels: Labels of the layers, at least two, or names of derived quantities, of which one suffices.
        values: Costs of the combinations. The candidate of the last layer changes fastest.
    """

    labels: tuple[str, ...]
    values: tuple[float, ...]

    def array(self, sizes: Sequence[int]) -> FloatArray:
        """Return the costs as an array with one axis for each layer. `sizes` are their numbers of candidates."""
        return np.asarray(self.values, dtype=np.float64).reshape(tuple(sizes))


def one_of_each(sizes: Sequence[int], combinations: int = 0) -> Any:
    """Return the sparse matrix whose rows sum the variables of each layer, shape (layers, candidates + combinations).

    Args:
        sizes: Number of candidates of each layer.
        combinations: Number of further variables, which no row contains.
    """
    from scipy.sparse import csr_array

    total = int(np.sum(sizes))
    places = (np.repeat(np.arange(len(sizes)), sizes), np.arange(total))
    return csr_array((np.ones(total), places), shape=(len(sizes), total + combinations))


def linking_rows(
    sizes: Mapping[str, int], factors: Sequence[tuple[Sequence[int], Sequence[int]]], quantities: Sequence[Derived] = ()
) -> Any:
    """Return the sparse matrix of the equations that link combinations to candidates; its products must be 0.

    The equations of the factors come first, then those of the quantities (`derived.flow_rows`).

    Args:
        sizes: Number of candidates of each layer, by label, and of values of each quantity, by name.
        factors: For each array of costs, the positions of its layers and its shape.
        quantities: Derived quantities.
    """
    from scipy.sparse import csr_array

    starts = np.cumsum([0, *sizes.values()])
    number_of = list(sizes.values())
    rows: list[Any] = []
    columns: list[Any] = []
    values: list[Any] = []
    count, first = 0, int(starts[-1])
    for layers, shape in factors:
        places = np.indices(tuple(shape)).reshape(len(layers), -1)  # (axes, combinations)
        number = places.shape[1]
        for layer, place in zip(layers, places, strict=True):
            size = number_of[layer]
            rows += [count + place, count + np.arange(size)]
            columns += [first + np.arange(number), starts[layer] + np.arange(size)]
            values += [np.ones(number), -np.ones(size)]
            count += size
        first += number
    named = dict(zip(sizes, starts.tolist(), strict=False))
    more_rows, more_columns, more_values, more = flow_rows(named, first, quantities)
    entries = (
        np.concatenate([*values, more_values]),
        (np.concatenate([*rows, np.array(more_rows, int) + count]), np.concatenate([*columns, more_columns])),
    )
    return csr_array(entries, shape=(count + more, first + sum(quantity.arcs for quantity in quantities)))


def cheapest(
    layers: Mapping[str, FloatArray],
    factors: Sequence[tuple[Sequence[int], FloatArray]],
    quantities: Sequence[Derived] = (),
) -> list[int]:
    """Find the network with the smallest sum of costs.

    Args:
        layers: Costs of the candidates of each layer, shape (num_candidates,), by label. Quantities come last.
        factors: For each array of joint costs, the positions of its layers and the array.
        quantities: Derived quantities.

    Returns:
        Position of the chosen candidate of each layer.

    Raises:
        RunError: HiGHS did not solve the programme.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    by_label = {label: len(costs) for label, costs in layers.items()}
    sizes = list(by_label.values())
    arcs = np.zeros(sum(quantity.arcs for quantity in quantities))
    objective = np.concatenate([*layers.values(), *(values.ravel() for _, values in factors), arcs])
    links = linking_rows(by_label, [(where, values.shape) for where, values in factors], quantities)
    solved = milp(
        objective / (np.abs(objective).max() or 1.0),
        constraints=[
            LinearConstraint(one_of_each(sizes, len(objective) - sum(sizes)), 1, 1),
            LinearConstraint(links, 0, 0),
        ],
        bounds=Bounds(0, 1),
        integrality=np.concatenate([np.ones(sum(sizes)), np.zeros(len(objective) - sum(sizes))]),
        options={"mip_rel_gap": 0},
    )
    if solved.x is None:
        raise RunError(f"the integer programme of the cheapest network was not solved: {solved.message}")
    starts = np.cumsum([0, *sizes])
    return [int(np.argmax(solved.x[a:b])) for a, b in itertools.pairwise(starts)]
