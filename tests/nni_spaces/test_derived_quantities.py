"""Quantities of cells, against the networks that NNI builds."""

from __future__ import annotations

import random
from typing import Any

import nni.nas.hub.pytorch as hub
import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs
import pytest
from nni.mutable.exception import ConstraintViolation
from nni.nas.hub.pytorch.modules.nasbench101 import _NasBench101CellFixed, compute_vertex_channels, prune
from nni.nas.nn.pytorch import Cell

from nni_proxyless.latency.derived import FORBIDDEN
from nni_proxyless.nni_spaces.derived_quantities import ABSENT, loose_ends, quantities_of
from nni_proxyless.supernet.candidates import path_candidates, searched
from nni_proxyless.supernet.constraints import Constraints
from tests.nni_spaces.spaces import LooseEnds, samples_of
from tests.strategies.hub_spaces import SPACES


def candidates_of(space: Any) -> dict[str, tuple[Any, ...]]:
    mutables = space.simplify()
    return {label: tuple(path_candidates(mutables[label])) for label in searched(mutables)}


def test_loose_ends_of_all_networks() -> None:
    space = LooseEnds()
    candidates = candidates_of(space)
    (quantity,) = quantities_of(space, candidates)
    for sample in samples_of(space):
        places = {label: of.index(sample[label]) for label, of in candidates.items()}
        network: Any = space.freeze(sample)
        assert quantity.values[quantity.places_of(places)] == str(len(network.cell.output_node_indices))


def test_loose_ends_of_cells_with_two_inputs_for_each_node() -> None:
    space = SPACES["NASNet"].make()
    candidates, generator = candidates_of(space), random.Random(0)
    known = {quantity.name: quantity for quantity in quantities_of(space, candidates)}
    assert list(known) == ["normal: loose ends", "reduce: loose ends"]
    cells = {cell.label: cell for cell in space.modules() if isinstance(cell, Cell)}
    assert known["normal: loose ends"] == loose_ends(cells["normal"], candidates)
    for _ in range(100):
        places = {label: generator.randrange(len(of)) for label, of in candidates.items()}
        for label in cells:
            chosen = {candidates[k][places[k]][0] for k in candidates if k.startswith(f"{label}/input")}
            quantity = known[f"{label}: loose ends"]
            assert quantity.values[quantity.places_of(places)] == str(len({2, 3, 4, 5, 6} - chosen))


@pytest.mark.parametrize("vertices", [3, 5])
def test_vertices_are_pruned_and_as_wide_as_in_nni(vertices: int) -> None:
    space = hub.NasBench101(8, 2, 1, vertices, 5)
    candidates, generator = candidates_of(space), random.Random(0)
    known = {quantity.name: quantity for quantity in quantities_of(space, candidates)}
    constraints = Constraints.in_space(space.simplify())
    seen = set()
    for _ in range(400):
        sample = {label: generator.choice(of) for label, of in candidates.items()}
        places = {label: of.index(sample[label]) for label, of in candidates.items()}
        value = {name: quantity.values[quantity.places_of(places)] for name, quantity in known.items()}
        count = sample["cell/num_nodes"]
        inputs = [sample[f"cell/input{vertex}"] for vertex in range(1, count)]
        wanted = {f"cell: vertex {vertex}": ABSENT for vertex in range(1, vertices)}
        try:
            matrix, left = prune(_NasBench101CellFixed.build_connection_matrix(inputs, count), list(range(count)))
        except ConstraintViolation:
            left, matrix = [], None
        for place, vertex in enumerate(left):
            if vertex > 0:
                widths = [compute_vertex_channels(3, width, matrix)[place] for width in (8, 16)]
                what = "output" if vertex == count - 1 else " ".join(map(str, widths))
                wanted[f"cell: vertex {vertex}"] = f"{what} {'with input' if matrix[0, place] else 'alone'}"
        wanted["cell: graph"] = "network" if constraints.allow(sample) else FORBIDDEN
        assert value == wanted
        seen.add(wanted["cell: graph"])
    assert seen == ({"network", FORBIDDEN} if vertices == 5 else {"network", FORBIDDEN} & seen)
