"""`LatencyProfiler`: a latency table as an NNI ExpressionProfiler, for NNI's filters, penalties and strategies."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from nni.mutable import Categorical, MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.profiler import ExpressionProfiler

from ..errors import InputError, LatencyTableError, MissingOperatorError, SpaceError, shown
from ..latency.arrays import FloatArray
from ..latency.costs import SpaceCosts
from ..latency.entries import ModuleCall
from ..latency.judgement import warnings_of
from ..latency.table import LatencyTable
from ..supernet.candidates import labels_of, path_candidates, searched
from ..supernet.space import describe_space, layer_choices
from .space_walk import walk

_log = logging.getLogger(__name__)


class LatencyProfiler(ExpressionProfiler):
    """Predicts the cost of a sample of a model space in the table's unit, usually milliseconds.

    Three combinations of a space and a table are possible:

    * A `MobileNetV2Space` with a table of its operators.
    * Any space with a table fitted to whole networks, if the table's layers are named by the space's labels.
    * Any space with a table that `measure_model_space` measured for it.

    Args:
        model_space: NNI model space.
        table: Latency table that fits the space.

    Attributes:
        expression: Cost of a sample in the table's unit, as an NNI expression.

    Examples:
        A space and a latency table that was fitted to its labels are given:

        >>> profiler = LatencyProfiler(space, table)
        >>> profiler.profile({"f0": "keep", "f1": "drop", "f2": "drop", "f3": "drop"})
        4.3

    Raises:
        SpaceError: The table has entries for operators, and the space does not state its operators.
        LatencyTableError: A fitted table has other layers or candidates than the space.
        MissingOperatorError: The table lacks some operators or modules. The message lists all operators, or the first
            five modules.
    """

    expression: Any

    def __init__(self, model_space: ModelSpace, table: LatencyTable) -> None:
        super().__init__(model_space)
        self._mutables = labels_of(model_space)
        if table.calibration.networks:  # otherwise a part of a measurement, which judges its table at the end
            for text in warnings_of(table):
                _log.warning(text)
        spec = None if table.composition is not None else describe_space(model_space)
        if spec is not None:
            self.expression = _of_layers(table.costs(spec), layer_choices(spec))
        elif table.names_layers:
            self.expression = _of_layers(table.own_costs(), _check(model_space, table))
        elif table.input_shape is not None:
            self.expression = _of_modules(model_space, table, table.input_shape)
        else:
            raise SpaceError(
                f"LatencyProfiler: {type(model_space).__name__} does not say which operators its candidates are, and "
                f"the table of {table.device.name} has entries for operators only. Measure a table for this space with "
                "nni_proxyless.nni_spaces.space_latency.measure_model_space, or fit one to whole networks"
            )

    def profile(self, sample: Mapping[str, Any]) -> float:
        """Compute the cost of one network.

        Args:
            sample: Mapping from labels to candidates.

        Raises:
            InputError: A candidate does not exist.
        """
        for label in searched(self._mutables):
            if label in sample and self._mutables[label].check_contains(dict(sample)) is not None:
                given, known = shown(sample[label]), ", ".join(map(str, _candidates(self._mutables[label])))
                raise InputError(f"layer {label}: unknown candidate {given} (allowed: {known})")
        return float(super().profile(dict(sample)))


def _of_layers(costs: SpaceCosts, choices: Mapping[str, Any]) -> Any:
    names = {label: [str(name) for name in _candidates(choices[label])] for label in costs.candidates}
    order = {label: [list(map(str, of)).index(name) for name in names[label]] for label, of in costs.candidates.items()}
    terms = []
    for label, values in costs.layers.items():
        if any(values):
            terms.append(_lookup([choices[label]], np.asarray(values)[order[label]]))
    derived = {quantity.name for quantity in costs.derived}
    plain = [(labels, array) for labels, array in costs.joint_arrays if not derived & set(labels)]
    if len(plain) < len(costs.joint):
        terms.append(_of_quantities(costs, choices, derived))
    for labels, array in plain:
        ordered = array[np.ix_(*(order[label] for label in labels))]
        terms.append(_lookup([choices[label] for label in labels], ordered))
    return _sum([costs.fixed, *terms])


def _of_quantities(costs: SpaceCosts, choices: Mapping[str, Any], derived: set[str]) -> Any:
    """Build an NNI expression of all costs that depend on derived quantities. It calls a function of the choices."""
    joint = tuple(each for each in costs.joint if derived & set(each.labels))
    behind = {quantity.name: quantity.labels for quantity in costs.derived}
    used = {label for each in joint for name in each.labels for label in behind.get(name, (name,))}
    used |= {label for labels in behind.values() for label in labels}
    own = [label for label in costs.layers if label in used]
    part = SpaceCosts(
        0.0,
        {label: costs.candidates[label] for label in own},
        {label: (0.0,) * len(costs.layers[label]) for label in own},
        costs.unit,
        joint,
        costs.derived,
    )

    def cost(*values: Any) -> float:
        return part.of({label: str(value) for label, value in zip(own, values, strict=True)})

    template = f"cost({', '.join('{}' for _ in own)})"
    return MutableExpression(cost, template, [choices[label] for label in own])


def _candidates(choice: Any) -> Sequence[Any]:
    return choice.values if isinstance(choice, Categorical) else path_candidates(choice)


def _of_modules(model_space: ModelSpace, table: LatencyTable, input_shape: tuple[int, ...]) -> Any:
    units = walk(model_space, input_shape)
    free = table.unit != "ms"  # a module with a count of 0 has no entry
    if not free:
        known = {entry for entry in table.operators if isinstance(entry, ModuleCall)}
        missing = list(dict.fromkeys(str(unit.call) for unit in units if unit.call not in known))
        if missing:
            raise MissingOperatorError(
                f"the table of {table.device.name} ({table.space}) lacks {len(missing)} module(s) of "
                f"{type(model_space).__name__}: {'; '.join(missing[:5])}. Measure it again for this space"
            )
    terms = []
    for unit in units:
        entry = table.operators.get(unit.call)
        if entry is not None:
            cost = table.calibration.scale * entry.cost
            terms.append(cost if unit.used is True else MutableExpression.condition(unit.used, cost, 0.0))
    return _sum([table.calibration.offset_ms, *terms])


def _check(model_space: ModelSpace, table: LatencyTable) -> dict[str, Any]:
    """Check that a space has the layers and candidates that a table names.

    Returns:
        Choices of the space by label.

    Raises:
        LatencyTableError: The space lacks a layer of the table, or a layer has other candidates.
        SpaceError: A layer has no list of candidates.
    """
    costs = table.own_costs()
    mutables = labels_of(model_space)
    choices = {str(label): mutables[label] for label in searched(mutables) if label in costs.candidates}
    for label, names in costs.candidates.items():
        values = [str(value) for value in _candidates(choices[label])] if label in choices else []
        if sorted(values) != sorted(names):
            raise LatencyTableError(
                f"the table of {table.device.name} has layer {label} with {', '.join(names)}; "
                f"{type(model_space).__name__} has {', '.join(values) or 'no such layer'}"
            )
    return choices


def _lookup(choices: Sequence[Any], values: FloatArray) -> Any:
    """Build an NNI expression that returns the value of the chosen candidates; an axis of `values` for each choice."""
    if not choices:
        return float(values)
    parts = [_lookup(choices[1:], part) for part in values]
    result = parts[-1]
    for candidate, part in list(zip(_candidates(choices[0]), parts, strict=True))[-2::-1]:
        result = MutableExpression.condition(choices[0] == candidate, part, result)
    return result


def _sum(terms: Iterable[Any]) -> Any:
    """Sum terms as a balanced tree.

    NNI evaluates expressions recursively, and a long chain of additions would exceed the recursion limit.
    """
    level = list(terms)
    while len(level) > 1:
        level = [sum(level[i : i + 2][1:], level[i]) for i in range(0, len(level), 2)]
    return level[0]
