"""NNI's NDS family of networks (NASNet, ENAS, AmoebaNet, PNAS, DARTS): the depth of its stages, and its weights.

A cell takes the outputs of the two cells before it. If a stage has one cell only, the first cell of the next stage
takes the output of the stage before, which has another shape and needs another preprocessor. NNI builds the networks of
a sample in this way, so the supernet has both preprocessors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.mutable import Mutable, frozen_context
from nni.nas.nn.pytorch import Cell, ModelSpace, Repeat
from nni.nas.nn.pytorch.base import recursive_freeze
from torch import Tensor, nn

from ..errors import SpaceError
from .frozen_state import remake_with_weights
from .gate import Gate
from .gated_cells import GatedCell
from .gated_values import GatedValue, ValueModule, ValueRepeat


def _nasnet() -> Any:
    """Return NNI's module of these spaces if it has been imported, as it is for each such space."""
    return sys.modules.get("nni.nas.hub.pytorch.nasnet")


def is_nds(model: nn.Module) -> bool:
    """Whether a model is one of NNI's NDS family."""
    nasnet = _nasnet()
    return nasnet is not None and isinstance(model, nasnet.NDS)


class PreprocessorByDepth(ValueModule):
    """Preprocessor of the older input of a stage's first cell, which depends on the depth of the stage before.

    Args:
        deep: Preprocessor after a stage of several cells.
        shallow: Preprocessor after a stage of one cell.
        depth: Depth of the stage before, an expression of choices.
        gates: Gates of these choices.
    """

    def __init__(self, deep: nn.Module, shallow: nn.Module, depth: Any, gates: Sequence[Gate]) -> None:
        super().__init__()
        self._reads(gates)
        self.add_mutable(depth)
        self.deep, self.shallow, self._depth = deep, shallow, depth

    def forward(self, x: Tensor) -> Tensor:
        self.check_inside()
        y: Tensor = self.chosen(self.values())(x)
        return y

    def freeze(self, sample: dict[str, Any]) -> nn.Module:
        frozen: nn.Module = recursive_freeze(self.chosen(sample), sample)[0]
        return frozen

    def chosen(self, sample: Mapping[str, Any]) -> nn.Module:
        """Return the preprocessor of one network."""
        return self.shallow if self._depth.evaluate(dict(sample)) == 1 else self.deep


def prepare_nds(model: ModelSpace, gates: Mapping[str, Gate]) -> None:
    """Give the stages of an NDS space with a choice of depth all preprocessors that their networks have.

    Args:
        model: Model space that is not mutated yet; changed in place. Other spaces are left unchanged.
        gates: Gates by label.

    Raises:
        SpaceError: A stage may have no cell.
    """
    if not is_nds(model):
        return
    nasnet: Any = _nasnet()
    for before, stage in zip(list(model.stages)[:-1], list(model.stages)[1:], strict=True):
        if not isinstance(before.depth_choice, Mutable) or before.min_depth > 1:
            continue
        if before.min_depth < 1:
            raise SpaceError(
                f"num_cells={model.num_cells} of {type(model).__name__} has networks with a stage without cells, which "
                "NNI cannot build; use at least 3 cells"
            )
        preprocessor = stage.blocks[0].preprocessor
        width = preprocessor.pre1[1].args["out_channels"]
        read = [gates[str(label)] for label in before.depth_choice.simplify()]
        with frozen_context():
            if before.downsampling:
                shallow = nasnet.FactorizedReduce(before.estimated_out_channels_prev, width)
            else:
                shallow = nasnet.ReLUConvBN(before.estimated_out_channels_prev, width, 1, 1, 0)
            preprocessor.pre0 = PreprocessorByDepth(preprocessor.pre0, shallow, before.depth_choice, read)


def mutate_stage(
    module: nn.Module, _name: str, memo: Mapping[str, Any], _kwargs: Mapping[str, Any]
) -> nn.Module | bool | None:
    """Replace a stage of an NDS space whose depth is chosen (NNI mutation hook)."""
    nasnet = _nasnet()
    if nasnet is None or type(module) is not nasnet.NDSStage or not isinstance(module.depth_choice, Mutable):
        return None
    return ValueRepeat(module, [memo[str(label)] for label in module.depth_choice.simplify()])


class _KeepsWeights(nn.Module):
    """Added to the class of an NDS space, whose `freeze` would return a network with new weights."""

    def freeze(self, sample: dict[str, Any]) -> Any:
        network = super().freeze(sample)  # type: ignore[misc]
        _inherit(self, network, sample)
        return network.train(self.training)


def keep_weights(supernet: nn.Module) -> None:
    """Let the networks of a space have the weights of its supernet, also if its `freeze` makes them anew.

    Args:
        supernet: Mutated model space; changed in place.
    """
    if is_nds(supernet):
        cls = type(supernet)
        names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        supernet.__class__ = type(cls.__name__, (_KeepsWeights, cls), names)
    else:
        remake_with_weights(supernet)


@torch.no_grad()
def _inherit(supernet: nn.Module, network: Any, sample: Mapping[str, Any]) -> None:
    """Copy the supernet's weights into a network.

    Behind loose ends, a network has only the columns of those nodes that the cell before returns.
    """
    state = dict(_state(supernet, sample, ""))
    order = [(stage, place) for stage, cells in enumerate(network.stages) for place in range(len(cells))]
    cells: list[Cell] = [network.stages[stage][place] for stage, place in order]
    for name, value in network.state_dict().items():
        found = state[name]
        if found.shape != value.shape:
            if name.startswith("classifier."):
                producer = cells[-1]
            else:
                _, stage, place, _, which, *_ = name.split(".")
                number = order.index((int(stage), int(place)))
                producer = cells[number - (2 if which == "pre0" else 1)]
            nodes = len(producer.ops)
            kept = [node - producer.num_predecessors for node in producer.output_node_indices]
            columns = found.reshape(len(found), nodes, found.shape[1] // nodes, *found.shape[2:])
            found = columns[:, kept].flatten(1, 2)
        value.copy_(found)


def _state(module: Any, sample: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights and buffers of one network by their names in the network. Nothing is copied as a whole."""
    if isinstance(module, PreprocessorByDepth):
        yield from _state(module.chosen(sample), sample, prefix)
    elif isinstance(module, GatedValue):
        yield from ((prefix + name, value) for name, value in module.freeze(dict(sample)).state_dict().items())
    elif isinstance(module, Repeat):
        depth = module.depth_choice.evaluate(dict(sample)) if isinstance(module.depth_choice, Mutable) else None
        for number, block in enumerate(list(module.blocks)[:depth]):
            yield from _state(block, sample, f"{prefix}{number}.")
    elif isinstance(module, GatedCell):
        yield from _state(module.preprocessor, sample, f"{prefix}preprocessor.")
        for place, chosen in module.chosen(sample):
            yield from _state(chosen, sample, f"{prefix}ops.{place}.")
    else:
        yield from ((prefix + name, p) for name, p in module.named_parameters(recurse=False))
        yield from ((prefix + name, b) for name, b in module.named_buffers(recurse=False))
        for name, child in module.named_children():
            yield from _state(child, sample, f"{prefix}{name}.")
