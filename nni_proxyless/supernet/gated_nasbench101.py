"""Gated version of NNI's NasBench101Cell, whose vertices have as many channels as its graph gives them.

All choices of a cell together decide which vertices take part and how wide they are. So the cell reads the values of
all its gates, and its operators use slices of shared weights (`sliced.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from torch import Tensor, nn

from .gate import Gate
from .gated_values import ValueModule
from .sliced import SlicedModule

_MODULE = "nni.nas.hub.pytorch.modules.nasbench101"


class _Plans(dict[tuple[int, ...], Any]):
    """Graphs that have been computed. A copy of the module that has them starts without any."""

    def __deepcopy__(self, _memo: Any) -> _Plans:
        return _Plans()


class GatedNasBench101Cell(ValueModule):
    """NasBench101Cell that computes one graph in each pass.

    Args:
        cell: Cell of NNI's hub.
        gates: Gates by label.
    """

    def __init__(self, cell: Any, gates: Mapping[str, Gate]) -> None:
        super().__init__()
        constraint = cell.constraint
        self.add_mutable(constraint)
        self._cell = (cell.op_candidates, cell.in_features, cell.out_features, cell.projection, cell.max_num_nodes)
        self._more = (cell.max_num_edges, cell._scope)
        self._kind = type(cell)
        self._reads([gates[str(m.label)] for m in (constraint.num_nodes, *constraint.operations, *constraint.inputs)])
        self._plans = _Plans()
        out, nodes = cell.out_features, cell.max_num_nodes
        # The output's channels are divided among the vertices that lead to it; some have one more than the others.
        widths = sorted({out // n + extra for n in range(1, max(nodes - 1, 2)) for extra in (0, 1) if extra <= out % n})
        self.projections = nn.ModuleList()
        self.ops = nn.ModuleList()
        for vertex in range(1, nodes):
            project = cell.projection

            def projection(width: int, project: Any = project) -> nn.Module:
                made: nn.Module = project(cell.in_features, width)
                return made

            self.projections.append(SlicedModule(cell.projections[vertex], widths, projection))
            if vertex < nodes - 1:
                choice = cell.ops[vertex]
                self.ops.append(
                    nn.ModuleDict(
                        {name: SlicedModule(choice[name], widths, make) for name, make in cell.op_candidates.items()}
                    )
                )

    def _plan(self, values: Mapping[str, Any]) -> tuple[Any, list[int], list[int], list[str]]:
        """Return the pruned graph of a sample: its matrix, its vertices, their widths and their operators."""
        from nni.nas.hub.pytorch.modules import nasbench101

        count, *others = [values[gate.label] for gate in self._read]
        operators, inputs = others[: self._cell[4] - 2], others[self._cell[4] - 2 :]
        matrix = nasbench101._NasBench101CellFixed.build_connection_matrix(inputs[: count - 1], count)
        matrix, vertices = nasbench101.prune(matrix, list(range(count)))
        widths = nasbench101.compute_vertex_channels(self._cell[1], self._cell[2], matrix)
        return matrix, vertices, widths, [operators[vertex - 1] for vertex in vertices[1:-1]]

    def forward(self, x: Tensor) -> Tensor:
        self.check_inside()
        key = tuple(gate.current for gate in self._read)
        if key not in self._plans:
            self._plans[key] = self._plan(self.values())
        matrix, vertices, widths, operators = self._plans[key]
        last = len(matrix) - 1
        tensors = [x]
        for t in range(1, last):
            taken = [tensors[source][:, : widths[t]] for source in range(1, t) if matrix[source, t]]
            if matrix[0, t]:
                taken.append(self.projections[vertices[t] - 1](widths[t], x))
            total = taken[0] if len(taken) == 1 else sum(taken[1:], taken[0])
            tensors.append(self.ops[vertices[t] - 1][operators[t - 1]](widths[t], total))
        found = [tensors[source] for source in range(1, last) if matrix[source, last]]
        direct = [self.projections[-1](widths[last], x)] if matrix[0, last] else []
        if not found:
            return direct[0]  # type: ignore[no-any-return]
        y = found[0] if len(found) == 1 else torch.cat(found, 1)
        return y + direct[0] if direct else y

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        """Return NNI's fixed cell, with slices of the supernet's weights."""
        projections: Any = self.projections
        ops: Any = self.ops
        fixed: Any = self._kind.create_fixed_module(sample, *self._cell, *self._more)
        _, vertices, widths, operators = self._plan(sample)
        for t in range(1, len(widths)):
            place = -1 if t == len(widths) - 1 else vertices[t] - 1
            fixed.projections[t] = projections[place].frozen(widths[t])
        for t, operator in enumerate(operators, start=1):
            fixed.ops[t] = ops[vertices[t] - 1][operator].frozen(widths[t])
        return fixed.train(self.training)  # type: ignore[no-any-return]


def mutate_nasbench101(
    module: nn.Module, _name: str, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]
) -> nn.Module | bool | None:
    """Replace a NasBench101Cell by its gated version (NNI mutation hook)."""
    if type(module).__module__ != _MODULE or type(module).__name__ != "NasBench101Cell":
        return None
    return GatedNasBench101Cell(module, memo)
