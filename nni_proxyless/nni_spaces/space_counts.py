"""What each candidate of any NNI model space computes, for fits to whole networks (`latency/fitting/few_shot.py`)."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nni.mutable import Categorical, MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..errors import SpaceError
from ..latency.counts import Counts, counts_of_space, from_rows
from ..latency.entries import Choice
from ..latency.flop_counter import multiply_adds_counted, total_multiply_adds
from ..supernet.candidates import labels_of
from ..supernet.space import describe_space
from .space_walk import MAX_VARIANTS, walk

_MOST_COMBINATIONS = 20 * MAX_VARIANTS


def counts_of_model_space(model_space: ModelSpace, input_shape: tuple[int, ...]) -> Counts:
    """Count what each candidate of each choice of a space computes for one image.

    The counts of a network are the sum over its choices, plus `Counts.fixed`. If each module depends on one choice,
    this sum is exact. Otherwise, such as for a width that two layers share, it is the best additive approximation
    over random networks: the main effects of the choices.

    Args:
        model_space: Any NNI model space.
        input_shape: Shape of one input, without the batch dimension.

    Returns:
        Counts by label and candidate; see `counts_of_module` for their names.

    Raises:
        SpaceError: NNI's shape inference fails on the space, a choice has no list of candidates, or a module depends on
            too many choices at once.
    """
    spec = describe_space(model_space)
    if spec is not None:
        return counts_of_space(spec)
    mutables: dict[str, Categorical] = {}
    for label, mutable in labels_of(model_space).items():
        if not isinstance(mutable, Categorical):
            raise SpaceError(f"choice '{label}' is {type(mutable).__name__}: only choices among candidates have counts")
        mutables[str(label)] = mutable
    units = walk(model_space, input_shape)
    modules = {unit.call: unit.module for unit in units}
    counts = {
        call: counts_of_module(module, [torch.zeros(1, *shape) for shape in call.inputs])
        for call, module in modules.items()
    }
    rows: dict[Choice, dict[str, float]] = {
        Choice(label, str(name)): {} for label, of in mutables.items() for name in of.values
    }
    fixed: dict[str, float] = {}
    for unit in units:
        of_unit = counts[unit.call]
        mean, parts = _main_effects(unit.used, mutables)
        _add(fixed, of_unit, mean)
        for choice, effect in parts.items():
            _add(rows[choice], of_unit, effect)
    _shift(rows, fixed, mutables)
    return from_rows(rows, [fixed], f"model space {type(model_space).__name__}")


def counts_of_module(module: nn.Module, inputs: Sequence[torch.Tensor]) -> dict[str, float]:
    """Count what a module computes.

    Args:
        module: Module without choices.
        inputs: Inputs of one image, with a batch dimension of 1.

    Returns:
        Counts by name. `pointwise_macs`, `depthwise<k>_macs`, `grouped_macs` and `convolution_macs` are multiply-adds
        of convolutions with kernel 1, of depthwise ones with kernel k, of grouped ones and of all others.
        `linear_macs` are those of linear layers, and `other_macs` those of other matrix products, such as those of
        attention and of LSTM, GRU and RNN layers. `parameters` counts each parameter once. `activations` is the number
        of values that convolutions and linear layers put out, and `convolutions` the number of these layers. `blocks`
        is 1 if there is any of them.
    """
    found: dict[str, float] = {}

    def count(layer: Any, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, _ConvNd):
            positions = math.prod((given[0] if layer.transposed else output).shape[2:])
        else:
            positions = math.prod(output.shape[1:-1])
        macs = layer.weight.numel() * positions
        _add(found, {f"{_kind(layer)}_macs": macs, "activations": output[0].numel(), "convolutions": 1})

    layers = [layer for layer in module.modules() if isinstance(layer, (_ConvNd, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = module.training
    try:
        with multiply_adds_counted() as counter, torch.no_grad():
            module.eval()(*inputs)
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    rest = total_multiply_adds(counter) - sum(value for name, value in found.items() if name.endswith("_macs"))
    if rest > 0:
        found["other_macs"] = rest
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {**found, **({"parameters": parameters} if parameters else {}), **({"blocks": 1} if found else {})}


def _kind(layer: nn.Module) -> str:
    if not isinstance(layer, _ConvNd):
        return "linear"
    if layer.groups > 1:
        depthwise = layer.groups == layer.in_channels
        return f"depthwise{max(layer.kernel_size)}" if depthwise else "grouped"
    return "pointwise" if max(layer.kernel_size) == 1 else "convolution"


def _main_effects(
    used: MutableExpression[Any] | bool, mutables: Mapping[str, Categorical]
) -> tuple[float, dict[Choice, float]]:
    """Decompose whether a module is used into a constant and the effect of each candidate, over random networks."""
    if isinstance(used, bool):
        return float(used), {}
    labels = [str(label) for label in used.simplify()]
    if len(labels) == 1:  # exact, without a mean that would have to be subtracted again
        values = mutables[labels[0]].values
        return 0.0, {Choice(labels[0], str(v)): float(bool(used.evaluate({labels[0]: v}))) for v in values}
    combinations = math.prod(len(mutables[label].values) for label in labels)
    if combinations > _MOST_COMBINATIONS:
        raise SpaceError(
            f"a module depends on the choices {', '.join(labels[:5])} at once, in {combinations} combinations; at most "
            f"{_MOST_COMBINATIONS} are counted: give the counts as a CSV file"
        )
    totals: dict[Choice, float] = {}
    mean = 0.0
    for combination in itertools.product(*(mutables[label].values for label in labels)):
        if used.evaluate(dict(zip(labels, combination, strict=True))):
            mean += 1.0 / combinations
            for label, value in zip(labels, combination, strict=True):
                choice = Choice(label, str(value))
                totals[choice] = totals.get(choice, 0.0) + len(mutables[label].values) / combinations
    effects = {
        choice: totals.get(choice, 0.0) - mean
        for label in labels
        for choice in (Choice(label, str(value)) for value in mutables[label].values)
    }
    return mean, effects


def _shift(
    rows: Mapping[Choice, dict[str, float]], fixed: dict[str, float], mutables: Mapping[str, Categorical]
) -> None:
    """Move the smallest count of each choice to the fixed counts, so that no count is negative."""
    names = functools.reduce(lambda known, row: known | set(row), rows.values(), set(fixed))
    for label, mutable in mutables.items():
        choices = [Choice(label, str(value)) for value in mutable.values]
        for name in names:
            least = min(rows[choice].get(name, 0.0) for choice in choices)
            if least == 0.0:
                continue
            fixed[name] = fixed.get(name, 0.0) + least
            for choice in choices:
                rows[choice][name] = rows[choice].get(name, 0.0) - least


def _add(total: dict[str, float], counts: Mapping[str, float], factor: float = 1.0) -> None:
    for name, value in counts.items():
        total[name] = total.get(name, 0.0) + factor * value
