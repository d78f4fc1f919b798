"""Decomposition of any NNI model space into modules that a latency table can measure.

The space may be one of NNI's hub or the user's own. Its modules are visited with the shapes that NNI's shape inference
finds; a shape may depend on choices. A module that contains no further choice of layers is a unit. A unit is measured
whole, once for each variant, which is a combination of its own choices and of the choices in the shapes of its inputs.
A unit with too many variants is split into its submodules. The latency of a `LayerChoice` is that of the chosen
candidate, and the latency of a `Repeat` is that of the blocks up to the chosen depth.
"""

from __future__ import annotations

import contextlib
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
from nni.nas.profiler.pytorch.utils.shape import _current_module_names as _running
from torch import nn

from ..errors import SpaceError
from ..latency.entries import ModuleCall

MAX_VARIANTS = 500


@dataclass(frozen=True)
class Unit:
    """One variant of a unit.

    Attributes:
        call: Entry of the latency table: the frozen module and the shapes of its inputs.
        module: Frozen module.
        used: NNI expression that tells whether a sample of the space uses this variant; `True` if every sample does.
    """

    call: ModuleCall
    module: nn.Module
    used: MutableExpression[Any] | bool


def walk(model_space: ModelSpace, input_shape: tuple[int, ...]) -> list[Unit]:
    """List all variants of all units of a space.

    Args:
        model_space: Any NNI model space.
        input_shape: Shape of one input, without the batch dimension.

    Raises:
        SpaceError: NNI's shape inference fails on the space, or a unit has too many variants and no submodules.
    """
    training = model_space.training
    model_space.eval()  # in training mode, batch norm raises an error if a channel has a single value
    try:
        with torch.no_grad(), _nothing_left_behind(model_space):
            shapes = submodule_input_output_shapes(model_space, ShapeTensor(torch.randn(1, *input_shape), True))
    except Exception as reason:
        raise SpaceError(
            f"NNI's shape inference fails on {type(model_space).__name__} with input {input_shape}: {str(reason)[:200]}"
        ) from reason
    finally:
        model_space.train(training)
    return list(_walk("", model_space, shapes, True))


@contextlib.contextmanager
def _nothing_left_behind(model_space: ModelSpace) -> Iterator[None]:
    """Context manager that removes what NNI's shape inference leaves behind when it fails.

    NNI keeps the modules that are running in one list, by their ids. A failure leaves the last of them there. If a
    module of a later inference gets the id of such a module, NNI takes it for that module and may lose shapes. A
    failure also leaves NNI's hooks in the modules, which then fail with ordinary tensors.
    """
    _running.clear()  # of a failure outside this package, such as in NNI's own profilers
    before = [
        (hooks, set(hooks))
        for module in model_space.modules()
        for hooks in (module._forward_hooks, module._forward_pre_hooks)
    ]
    try:
        yield
    finally:
        _running.clear()
        for hooks, known in before:
            for number in set(hooks) - known:
                del hooks[number]


def _walk(name: str, module: nn.Module, shapes: dict[str, Any], used: Any) -> Iterator[Unit]:
    def below(child: str) -> str:
        return f"{name}.{child}" if name else child

    if isinstance(module, LayerChoice):
        for candidate in module.choice.values:
            yield from _walk(below(str(candidate)), module[candidate], shapes, _and(used, module.choice == candidate))
    elif isinstance(module, Repeat):
        for depth, block in enumerate(module.blocks, start=1):
            deep = True if isinstance(module.depth_choice, int) else module.depth_choice >= depth
            yield from _walk(below(f"blocks.{depth - 1}"), block, shapes, _and(used, deep))
    elif isinstance(module, InputChoice):
        return  # selects and adds tensors, at negligible cost beside a convolution
    elif (
        name in shapes
        and _is_unit(module)
        and (_num_variants(module, shapes[name][0]) <= MAX_VARIANTS or not any(True for _ in module.children()))
    ):
        yield from _variants(name, module, shapes[name][0], used)
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
    """Wrapper that makes it possible to freeze a module that contains mutables but is not mutable itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _choices(module: nn.Module, inputs: tuple[Any, ...]) -> MutableList:
    return MutableList([_Holder(module), *(shape for shape in inputs if hasattr(shape, "numel"))])


def _num_variants(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Number of variants of a module and the shapes of its inputs."""
    mutables = _choices(module, inputs).simplify().values()
    return math.prod(len(m.values) if isinstance(m, Categorical) else MAX_VARIANTS + 1 for m in mutables)


def _variants(name: str, module: nn.Module, inputs: tuple[Any, ...], used: Any) -> Iterator[Unit]:
    everything = _choices(module, inputs)
    mutables: dict[str, LabeledMutable] = everything.simplify()
    count = _num_variants(module, inputs)
    if count > MAX_VARIANTS:
        raise SpaceError(
            f"module '{name}' ({type(module).__name__}) has {count} variants or more; at most "
            f"{MAX_VARIANTS} are measured: make its choices LayerChoices of smaller modules"
        )
    sample: dict[str, Any] = {}
    for frozen, *sizes in everything.grid(memo=sample):
        fits = functools.reduce(operator.and_, (mutables[k] == value for k, value in sample.items()), True)
        made = frozen.module if isinstance(frozen, _Holder) else frozen
        call = ModuleCall(repr(made), tuple(tuple(int(n) for n in size[1:]) for size in sizes))
        yield Unit(call, made, _and(used, fits))


def _and(first: Any, second: Any) -> Any:
    if first is True:
        return second
    return first if second is True else first & second
