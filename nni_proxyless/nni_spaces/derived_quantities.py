"""Quantities on which the modules of cells depend, instead of on all choices inside the cell.

The output of a cell with loose ends consists of the nodes that no other node uses, so the modules after it depend only
on the number of these nodes. In a cell of NasBench101, the width of a vertex follows from the whole graph. Both
quantities have few values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import numpy as np
import numpy.typing as npt
from nni.nas.hub.pytorch.modules.nasbench101 import NasBench101Cell
from nni.nas.nn.pytorch import Cell
from torch import nn

from ..latency.derived import FORBIDDEN, Derived, IntArray

Mask = npt.NDArray[np.bool_]
ABSENT = "absent"


def quantities_of(space: nn.Module, candidates: Mapping[str, Sequence[Any]]) -> tuple[Derived, ...]:
    """Find the derived quantities of a model space.

    Args:
        space: Model space.
        candidates: Candidates of each label, as an NNI sample names them.
    """
    found: dict[str, Derived] = {}
    features: dict[str, set[int]] = {}
    graphs: dict[str, NasBench101Cell] = {}
    for module in space.modules():
        if isinstance(module, NasBench101Cell):
            graphs[module.label] = module
            features.setdefault(module.label, set()).add(module.out_features)
        elif isinstance(module, Cell) and module.merge_op == "loose_end":
            quantity = loose_ends(module, candidates)
            found.setdefault(quantity.name, quantity)
    for label, cell in graphs.items():
        for quantity in vertices(cell, sorted(features[label]), candidates):
            found[quantity.name] = quantity
    return tuple(found.values())


def loose_ends(cell: Cell, candidates: Mapping[str, Sequence[Any]]) -> Derived:
    """Return the number of nodes of a cell that no other node uses.

    The state of its diagram is the set of used nodes. The diagram has at most 2^nodes states for each input.
    """
    labels = [str(choice.label) for inputs in cell.inputs for choice in inputs]
    first, last = cell.num_predecessors, cell.num_predecessors + cell.num_nodes
    chosen = {label: [_numbers(candidate) for candidate in candidates[label]] for label in labels}

    def step(used: frozenset[int], layer: int, candidate: int) -> frozenset[int]:
        return used | {node for node in chosen[labels[layer]][candidate] if node >= first}

    return Derived.stepwise(
        f"{cell.label}: loose ends",
        {label: len(candidates[label]) for label in labels},
        frozenset(),
        step,
        lambda used: str(last - first - len(used)),
    )


def vertex_name(scope: str, vertex: int) -> str:
    """Return the name of the quantity that says what a vertex of the graph with a label is."""
    return f"{scope}: vertex {vertex}"


def vertices(cell: NasBench101Cell, features: Sequence[int], candidates: Mapping[str, Sequence[Any]]) -> list[Derived]:
    """Return which graphs of a NasBench101 cell are networks, and the state of each vertex.

    A vertex is absent, or it has a width and is connected to the cell's input or not.

    NNI removes vertices that do not connect the input with the output. A vertex directly before the output has a part
    of the output's width. Any other vertex has the largest width of the vertices after it.

    Args:
        cell: Cell.
        features: Different numbers of output channels of all cells with the same label.
        candidates: Candidates of each label, as an NNI sample names them.
    """
    scope = cell.label
    counts = [int(of) for of in candidates[f"{scope}/num_nodes"]]
    labels = [f"{scope}/input{vertex}" for vertex in range(1, max(counts))]
    tables = {count: _described([candidates[label] for label in labels[: count - 1]], features) for count in counts}
    networks = {
        count: _networks([candidates[label] for label in labels[: count - 1]], cell.max_num_edges) for count in counts
    }
    sizes = {f"{scope}/num_nodes": len(counts)} | {label: len(candidates[label]) for label in labels}
    graph = [Derived.tabulated("", labels[: count - 1], *networks[count]) for count in counts]
    found = [_joined(f"{scope}: graph", sizes, graph)]
    for vertex in range(1, max(counts)):
        of_count = [
            Derived.tabulated("", labels[: count - 1], *tables[count][vertex])
            if vertex < count
            else Derived("", (), (), (ABSENT,))
            for count in counts
        ]
        found.append(_joined(vertex_name(scope, vertex), sizes, of_count))
    return found


def _joined(name: str, sizes: Mapping[str, int], of_count: Sequence[Derived]) -> Derived:
    """Return the quantity whose first choice says which of several quantities it is."""

    def step(state: tuple[int, int], layer: int, candidate: int) -> tuple[int, int]:
        number, inner = state
        if layer == 0:
            return candidate, 0
        steps = of_count[number].steps
        return (number, steps[layer - 1][inner][candidate]) if layer <= len(steps) else state

    return Derived.stepwise(name, sizes, (0, 0), step, lambda state: of_count[state[0]].values[state[1]])


def _networks(inputs: Sequence[Sequence[Any]], most_edges: int) -> tuple[IntArray, list[str]]:
    """Say which graphs connect the input with the output and have few edges; see `_described`."""
    shape, edge, reached = _connected(inputs)
    edges = np.sum([*edge.values()], axis=0)
    return np.where(reached[-1] & (edges <= most_edges), 0, 1).reshape(shape), ["network", FORBIDDEN]


def _connected(inputs: Sequence[Sequence[Any]]) -> tuple[tuple[int, ...], dict[tuple[int, int], Mask], list[Mask]]:
    """Return the shape of all graphs, their edges, and which vertices are reached from the input."""
    shape = tuple(map(len, inputs))
    grid = np.indices(shape).reshape(len(inputs), -1)
    edge: dict[tuple[int, int], Mask] = {}
    for vertex, (of, places) in enumerate(zip(inputs, grid, strict=True), start=1):
        for source in range(vertex):
            edge[source, vertex] = np.array([source in _numbers(candidate) for candidate in of])[places]
    reached: list[Mask] = [np.ones(grid.shape[1], dtype=bool)]
    for vertex in range(1, len(inputs) + 1):
        reached.append(np.any([edge[source, vertex] & reached[source] for source in range(vertex)], axis=0))
    return shape, edge, reached


def _described(inputs: Sequence[Sequence[Any]], features: Sequence[int]) -> dict[int, tuple[IntArray, list[str]]]:
    """Describe each vertex behind the input for all graphs, as NNI prunes them and computes their widths.

    Args:
        inputs: Candidates of the inputs of each vertex.
        features: Numbers of output channels.

    Returns:
        For each vertex, an array of positions in a list of names, with an axis for each item of `inputs`, and the list.
    """
    last, (shape, edge, reached) = len(inputs), _connected(inputs)
    count = len(reached[0])
    reaching = {last: np.ones(count, dtype=bool)}
    for vertex in range(last - 1, -1, -1):
        behind = range(vertex + 1, last + 1)
        reaching[vertex] = np.any([edge[vertex, target] & reaching[target] for target in behind], axis=0)
    kept = {vertex: reached[vertex] & reaching[vertex] & reached[last] for vertex in range(1, last + 1)}
    direct = {vertex: kept[vertex] & edge[vertex, last] for vertex in range(1, last)}
    parts = np.maximum(np.sum([*direct.values()], axis=0), 1) if direct else np.ones(count, dtype=np.int64)
    # What each vertex is, as a position in a list of names.
    codes = {vertex: np.zeros(count, dtype=np.int64) for vertex in range(1, last + 1)}
    names = {vertex: ["output " if vertex == last else ""] for vertex in range(1, last + 1)}

    def add(vertex: int, more: IntArray, texts: Callable[[int], str]) -> None:
        size = int(more.max()) + 1
        found, codes[vertex] = np.unique(codes[vertex] * size + more, return_inverse=True)
        names[vertex] = [names[vertex][code // size] + texts(code % size) for code in found.tolist()]

    for width in features:
        channels: dict[int, IntArray] = {}
        before = np.zeros(count, dtype=np.int64)
        for vertex in range(1, last):
            channels[vertex] = np.where(direct[vertex], width // parts + (before < width % parts), 0)
            before += direct[vertex]
        for vertex in range(last - 2, 0, -1):
            for target in range(vertex + 1, last):
                wider = ~direct[vertex] & kept[vertex] & kept[target] & edge[vertex, target]
                channels[vertex] = np.where(wider, np.maximum(channels[vertex], channels[target]), channels[vertex])
        for vertex in range(1, last):
            add(vertex, channels[vertex], lambda channels: f"{channels} ")
    described = {}
    for vertex in names:
        add(vertex, edge[0, vertex].astype(np.int64), lambda joined: "with input" if joined else "alone")
        places = np.where(kept[vertex], codes[vertex], len(names[vertex]))
        described[vertex] = places.reshape(shape), [*names[vertex], ABSENT]
    return described


def _numbers(candidate: Any) -> list[int]:
    return [int(n) for n in candidate] if isinstance(candidate, (list, tuple)) else [int(candidate)]
