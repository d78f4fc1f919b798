"""Finds the place of a frozen network's module in the model space, and the choices on which it depends there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
from nni.mutable import Mutable
from nni.nas.hub.pytorch.modules.nasbench101 import NasBench101Cell, _NasBench101CellFixed, prune
from nni.nas.nn.pytorch import Cell, InputChoice, LayerChoice, MutableModule, ParametrizedModule, Repeat
from nni.nas.nn.pytorch.choice import ChosenInputs
from torch import nn

from .derived_quantities import vertex_name


@dataclass(frozen=True)
class Origin:
    """Place of a module in a model space.

    Attributes:
        path: Names of the modules from the space down to it, candidates of choices included.
        labels: Labels of the choices, and names of the derived quantities, that decide whether the module is there.
        module: The module, with its choices; `None` if the space does not contain this module of the frozen network.
        hint: Label of the input of an operator in a cell, which often determines its stride or its width.
        place: The path without the names of candidates.
    """

    path: str
    labels: frozenset[str]
    module: nn.Module | None
    hint: str | None = None
    place: str = ""


def origin_of(space: nn.Module, name: str, sample: Mapping[str, Any]) -> Origin:
    """Find the place of a module of a frozen network.

    Args:
        space: Model space.
        name: Path of the module in the frozen network.
        sample: NNI sample with which the network was frozen.
    """
    path: list[str] = []
    place: list[str] = []
    labels: set[str] = set()
    here: nn.Module | None = _chosen(space, sample, path, labels)
    graph: NasBench101Cell | None = None
    cell: tuple[Cell, list[str]] | None = None  # the innermost cell, and the parts of the name inside it
    for part in name.split(".") if name else ():
        below = None
        if graph is not None and part.isdigit():
            vertex = _vertices(graph, sample)[int(part)]
            labels |= {vertex_name(graph.label, vertex)} if vertex else set()
            part, graph = str(vertex), None
        elif isinstance(here, NasBench101Cell):
            graph = here
        if isinstance(here, Cell):
            cell = here, []
        if cell is not None:
            cell[1].append(part)
        if isinstance(here, Repeat):
            if isinstance(here.depth_choice, Mutable) and not (part.isdigit() and int(part) < here.min_depth):
                labels |= labels_of(here.depth_choice)
            path.append("blocks")
            place.append("blocks")
            below = here.blocks[int(part)] if part.isdigit() and int(part) < len(here.blocks) else None
        elif here is not None:
            below = here._modules.get(part)
        path.append(part)
        place.append(part)
        here = None if below is None else _chosen(below, sample, path, labels)
    hint = None
    if cell is not None and cell[1][:1] == ["ops"] and len(cell[1]) > 2:
        hint = str(cell[0].inputs[int(cell[1][1])][int(cell[1][2])].label)
    return Origin(".".join(path), frozenset(labels), here, hint, ".".join(place))


def _vertices(cell: NasBench101Cell, sample: Mapping[str, Any]) -> list[int]:
    """Return the vertices of a graph that NNI does not remove."""
    count = sample[f"{cell.label}/num_nodes"]
    inputs = [sample[f"{cell.label}/input{vertex}"] for vertex in range(1, count)]
    return prune(_NasBench101CellFixed.build_connection_matrix(inputs, count), list(range(count)))[1]  # type: ignore[no-any-return]


def _chosen(module: nn.Module, sample: Mapping[str, Any], path: list[str], labels: set[str]) -> nn.Module:
    while isinstance(module, LayerChoice):
        labels |= labels_of(module.choice)
        chosen = sample[module.label]
        path.append(str(chosen))
        module = module[chosen]
    return module


def labels_of(mutable: Mutable) -> set[str]:
    """Return the labels of all choices in a mutable."""
    return {str(label) for label in mutable.simplify()}


def labels_inside(module: nn.Module) -> set[str]:
    """Return the labels of all choices in the arguments of a module and of the modules inside it."""
    found: set[str] = set()
    for part in module.modules():
        if isinstance(part, MutableModule):
            found |= labels_of(part)
    return found


def has_structure(module: nn.Module) -> bool:
    """Whether a module contains choices that change which modules run, not only the arguments of modules."""
    return any(
        isinstance(part, (LayerChoice, InputChoice, Repeat, Cell))
        or (isinstance(part, MutableModule) and not isinstance(part, ParametrizedModule) and bool(part.mutables))
        for part in module.modules()
    )


def is_container(module: nn.Module) -> bool:
    """Whether a module only holds others, and is never called itself."""
    return isinstance(module, (nn.ModuleList, nn.ModuleDict))


def is_selection(module: nn.Module) -> bool:
    """Whether a module of a frozen network is the chosen version of an InputChoice."""
    return isinstance(module, ChosenInputs)
