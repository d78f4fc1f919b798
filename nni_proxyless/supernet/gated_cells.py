"""Gated version of NNI's Cell: one gate for each operator and one for each operator's input.

The operator of a position is chosen among the candidates for the input that is chosen, because a factory may make other
operators for other inputs. So the gate of the input is outside, and that of the operator inside it.

With `merge_op="loose_end"`, the cell returns only the nodes that no operator takes as its input, so the choice of an
input changes what the whole cell returns. The cell is then the region of its inputs' gates (`regions.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.mutable import label_scope
from nni.nas.nn.pytorch import Cell
from nni.nas.nn.pytorch.base import recursive_freeze
from nni.nas.nn.pytorch.cell import create_cell_op_candidates, preprocess_cell_inputs
from nni.nas.space import model_context
from torch import Tensor, nn

from ..errors import UnsupportedSpaceError
from .gate import Gate
from .gated import input_unchanged
from .gated_values import ValueModule


class GatedCell(ValueModule):
    """Cell that runs only the sampled operators, on the sampled inputs.

    Args:
        cell: Cell of NNI.
        name: Path of the cell in the model, for messages.
        gates: Gates by label.
        keeps_width: With `merge_op="loose_end"`, whether the nodes that are not returned are zeros in an output of
            constant width. If not, they are left out, so the width depends on the choices.

    Raises:
        SpaceError: Operators that a factory makes contain choices with labels that the space does not have.
    """

    def __init__(self, cell: Cell, name: str, gates: Mapping[str, Gate], keeps_width: bool) -> None:
        super().__init__()
        self.label = cell.label
        self.num_predecessors = cell.num_predecessors
        self.preprocessor, self.postprocessor = cell.preprocessor, cell.postprocessor
        self._concat_dim, self._merge_op = cell.concat_dim, cell.merge_op
        self._nodes = list(cell.output_node_indices)
        self._keeps_width = keeps_width
        self._factory = cell.op_candidates_factory
        self._gates_of: list[list[tuple[Gate, Gate]]] = []  # for each operator of each node: its input, its kind
        self.ops = nn.ModuleList()
        for node, (ops, inputs) in enumerate(zip(cell.ops, cell.inputs, strict=True), start=self.num_predecessors):
            positions = nn.ModuleList()
            pairs = []
            for number, (choice, taken) in enumerate(zip(ops, inputs, strict=True)):
                self.add_mutable(choice.choice)
                self.add_mutable(taken.choice)
                pairs.append((gates[str(taken.label)], gates[str(choice.label)]))
                positions.append(nn.ModuleList(self._candidates(choice, node, number)))
            self.ops.append(positions)
            self._gates_of.append(pairs)
        listed = [gate for pairs in self._gates_of for pair in pairs for gate in pair]
        self._all = tuple(dict.fromkeys(listed))
        self._gates = nn.ModuleList(self._all)  # so that architecture parameters move between devices with the model
        unknown = {str(label) for op in self.ops.modules() for label in _labels_in(op)} - set(gates)
        if unknown:
            raise UnsupportedSpaceError(
                f"module '{name}' is a Cell whose factory makes operators with the choice {sorted(unknown)[0]}, whose "
                "label differs each time; give the choice a label of its own"
            )
        wide = [taken for pairs in self._gates_of for taken, _ in pairs] if self._merge_op == "loose_end" else []
        self._of_cell = list(dict.fromkeys(wide)) if keeps_width else []
        self._read = () if keeps_width else tuple(dict.fromkeys(wide))

    @property
    def width_varies(self) -> bool:
        """Whether the width of the output depends on the choices."""
        return self._merge_op == "loose_end" and not self._keeps_width

    def _candidates(self, choice: Any, node: int, number: int) -> list[nn.ModuleDict]:
        """Return the candidates of one operator: for each input if a factory makes them, otherwise for all inputs."""
        if self._factory is None:
            return [nn.ModuleDict({str(name): choice[name] for name in choice.names})]
        with label_scope(self.label):
            made = [create_cell_op_candidates(self._factory, node, number, j)[0] for j in range(node)]
        return [nn.ModuleDict(of) for of in made]

    def own_gates(self) -> tuple[Gate, ...]:
        return self._all

    def forward(self, *inputs: Any) -> Any:
        self.check_inside()
        predecessors = preprocess_cell_inputs(self.num_predecessors, *inputs)
        run: Callable[[], Any] = partial(self._run, predecessors)
        for gate in self._of_cell:
            run = partial(self._compared, gate, run)
        return run()

    def _compared(self, gate: Gate, run: Callable[[], Any]) -> Any:
        return gate(lambda index: gate.run_as(index, run), self)

    def _run(self, predecessors: list[Any]) -> Any:
        states = list(self.preprocessor(list(predecessors)))
        nodes: Any = self.ops
        for pairs, positions in zip(self._gates_of, nodes, strict=True):
            found = [self._operator(*pair, of, states) for pair, of in zip(pairs, positions, strict=True)]
            states.append(torch.sum(torch.stack(found), 0))
        return self.postprocessor(self._merged(states), predecessors)

    def _operator(self, taken: Gate, kind: Gate, candidates: nn.ModuleList, states: list[Tensor]) -> Any:
        def with_input(index: int) -> Any:
            (j,) = taken.candidates[index]
            of: Any = candidates[j if len(candidates) > 1 else 0]

            def run(number: int) -> Any:
                name = str(kind.candidates[number])
                what = f"candidate '{name}' of '{kind.label}'"
                with input_unchanged(states[j], kind, what), input_unchanged(states[j], taken, what):
                    return of[name](states[j])

            return kind(run, of)

        return taken(with_input, candidates)

    def _merged(self, states: list[Tensor]) -> Tensor:
        if self._merge_op == "all":
            return torch.cat([states[node] for node in self._nodes], self._concat_dim)
        used = {taken.value[0] for pairs in self._gates_of for taken, _ in pairs}
        if self._keeps_width:
            kept = [torch.zeros_like(states[node]) if node in used else states[node] for node in self._nodes]
        else:
            kept = [states[node] for node in self._nodes if node not in used]
        return torch.cat(kept, self._concat_dim)

    def freeze(self, sample: dict[str, Any]) -> Cell:
        """Return NNI's frozen cell, with the supernet's weights."""
        self.validate(sample)
        names = [str(name) for name in self._gates_of[0][0][1].candidates]
        candidates = self._factory if self._factory is not None else {name: nn.Identity() for name in names}
        with model_context(sample):
            cell = Cell(
                candidates, len(self.ops), len(self._gates_of[0]), self.num_predecessors, self._merge_op,
                recursive_freeze(self.preprocessor, sample)[0] if isinstance(self.preprocessor, nn.Module)
                else self.preprocessor,
                self.postprocessor, self._concat_dim, label=self.label,
            )  # fmt: skip
        for place, chosen in self.chosen(sample):
            node, number = map(int, place.split("."))
            cell.ops[node][number] = recursive_freeze(chosen, sample)[0]
        return cell

    def chosen(self, sample: Mapping[str, Any]) -> Iterator[tuple[str, nn.Module]]:
        """Yield the operators of one network, with their numbers of node and position, such as `2.0`."""
        nodes: Any = self.ops
        for node, (pairs, positions) in enumerate(zip(self._gates_of, nodes, strict=True)):
            for number, ((taken, kind), of) in enumerate(zip(pairs, positions, strict=True)):
                (j,) = sample[taken.label]
                yield f"{node}.{number}", of[j if len(of) > 1 else 0][str(sample[kind.label])]


def _labels_in(module: nn.Module) -> list[str]:
    return [label for mutable in getattr(module, "mutables", ()) for label in mutable.simplify()]


def mutate_cell(
    module: nn.Module, name: str, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]
) -> nn.Module | bool | None:
    """Replace a Cell by its gated version (NNI mutation hook).

    Raises:
        SpaceError: The operators of the cell cannot be searched.
    """
    if type(module) is not Cell:
        return None
    # NNI's own family of networks gives the layers behind such a cell as many channels as all nodes have. They begin
    # with a ReLU and a convolution, for which a node that is missing is the same as one of zeros.
    keeps_width = type(module.postprocessor).__module__ == "nni.nas.hub.pytorch.nasnet"
    return GatedCell(module, name, memo, keeps_width)
