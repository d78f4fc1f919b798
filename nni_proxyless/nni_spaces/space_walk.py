"""Any NNI model space as a sum of modules: what a latency table needs to know of NNI's hub and of users' own spaces.

The space is walked with NNI's own shape inference, which carries choices in shapes along. A module that holds no
further choice of layers is one unit: it is measured whole, once for each combination of its own choices and those of
its input's shape; one with too many of them is taken apart. Of a `LayerChoice` the chosen candidate counts, of a
`Repeat` the blocks up to the chosen depth.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from nni.mutable import Categorical, LabeledMutable, MutableExpression, MutableList
from nni.nas.nn.pytorch import InputChoice, LayerChoice, ModelSpace, MutableModule, Repeat
from nni.nas.profiler.pytorch.utils import ShapeTensor, submodule_input_output_shapes
from torch import nn

from ..errors import SpaceError
from ..latency.entries import ModuleCall

MAX_COMBINATIONS = 500


@dataclass(frozen=True)
class Unit:
    """One way that a unit can come out.

    Attributes:
        call: The frozen module and the shapes of its inputs: what is measured.
        module: The frozen module.
        used: Whether a sample of the space uses it: an NNI expression, or always.
    """

    call: ModuleCall
    module: nn.Module
    used: MutableExpression[Any] | bool


def walk(model_space: ModelSpace, input_shape: tuple[int, ...]) -> list[Unit]:
    """The units of a space, each in all the ways it can come out.

    Args:
        model_space: Any NNI model space.
        input_shape: Shape of one input, without the batch dimension.

    Raises:
        SpaceError: NNI's shape inference does not get through the space, or a unit has too many combinations.
    """
    training = model_space.training
    model_space.eval()  # a batch-norm in training refuses a single pixel
    try:
        with torch.no_grad():
            shapes = submodule_input_output_shapes(model_space, ShapeTensor(torch.randn(1, *input_shape), True))
    except Exception as reason:
        raise SpaceError(
            f"NNI's shape inference fails on {type(model_space).__name__} with input {input_shape}: {str(reason)[:200]}"
        ) from reason
    finally:
        model_space.train(training)
    return list(_walk("", model_space, shapes, True))


def _walk(name: str, module: nn.Module, shapes: dict[str, Any], used: Any) -> Iterator[Unit]:
    def below(child: str) -> str:
        return f"{name}.{child}" if name else child

    if isinstance(module, LayerChoice):
        for candidate in module.choice.values:
            yield from _walk(below(str(candidate)), module[candidate], shapes, _both(used, module.choice == candidate))
    elif isinstance(module, Repeat):
        for depth, block in enumerate(module.blocks, start=1):
            deep = True if isinstance(module.depth_choice, int) else module.depth_choice >= depth
            yield from _walk(below(f"blocks.{depth - 1}"), block, shapes, _both(used, deep))
    elif isinstance(module, InputChoice):
        return  # chooses and adds: as good as nothing beside a convolution
    elif (
        name in shapes
        and _is_unit(module)
        and (_ways(module, shapes[name][0]) <= MAX_COMBINATIONS or not any(True for _ in module.children()))
    ):
        yield from _combinations(name, module, shapes[name][0], used)
    else:
        for child, part in module.named_children():
            yield from _walk(below(child), part, shapes, used)


def _is_unit(module: nn.Module) -> bool:
    inside = (LayerChoice, Repeat, InputChoice)
    plain_list = type(module) in (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return not (isinstance(module, ModelSpace) or plain_list) and not any(
        isinstance(m, inside) for m in module.modules()
    )


class _Holder(MutableModule):
    """Lets a module that is not mutable itself, but holds mutables, be frozen."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _choices(module: nn.Module, inputs: tuple[Any, ...]) -> MutableList:
    return MutableList([_Holder(module), *(shape for shape in inputs if hasattr(shape, "numel"))])


def _ways(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """In how many ways a module and the shapes of its inputs can come out."""
    mutables = _choices(module, inputs).simplify().values()
    return math.prod(len(m.values) if isinstance(m, Categorical) else MAX_COMBINATIONS + 1 for m in mutables)


def _combinations(name: str, module: nn.Module, inputs: tuple[Any, ...], used: Any) -> Iterator[Unit]:
    everything = _choices(module, inputs)
    mutables: dict[str, LabeledMutable] = everything.simplify()
    ways = _ways(module, inputs)
    if ways > MAX_COMBINATIONS:
        raise SpaceError(
            f"module '{name}' ({type(module).__name__}) can come out in {ways} ways or more; at most "
            f"{MAX_COMBINATIONS} are measured: make its choices LayerChoices of smaller modules"
        )
    sample: dict[str, Any] = {}
    for frozen, *sizes in everything.grid(memo=sample):
        fits = functools.reduce(operator.and_, (mutables[k] == value for k, value in sample.items()), True)
        made = frozen.module if isinstance(frozen, _Holder) else frozen
        call = ModuleCall(repr(made), tuple(tuple(int(n) for n in size[1:]) for size in sizes))
        yield Unit(call, made, _both(used, fits))


def _both(first: Any, second: Any) -> Any:
    if first is True:
        return second
    return first if second is True else first & second
