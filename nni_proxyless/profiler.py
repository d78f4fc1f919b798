"""`LatencyProfiler`: a latency table as an NNI ExpressionProfiler, for filters, penalties and other strategies."""

from __future__ import annotations

from typing import Any

from nni.mutable import Categorical, MutableExpression
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.profiler import ExpressionProfiler

from .latency.table import LatencyTable
from .space import layer_choices, require_description


class LatencyProfiler(ExpressionProfiler):
    """Predicts the latency of a sample, in milliseconds.

    Args:
        model_space: A `MobileNetV2Space`.
        table: A table that has all of its operators.

    Attributes:
        expression: fixed + Σ_layers F(chosen candidate), an NNI expression in milliseconds.

    Raises:
        SpaceError: The space does not describe its operators.
        MissingOperatorError: The table lacks some of them.
    """

    expression: Any

    def __init__(self, model_space: ModelSpace, table: LatencyTable) -> None:
        super().__init__(model_space)
        spec = require_description(model_space, "LatencyProfiler")
        self.costs = table.costs(spec)
        choices = layer_choices(spec)
        self.expression = self.costs.fixed
        for label, costs_ms in self.costs.layers.items():
            self.expression = self.expression + _lookup(choices[label], costs_ms)


def _lookup(choice: Categorical, values: tuple[float, ...]) -> MutableExpression:
    """The value that belongs to the chosen candidate, as an expression."""
    result: Any = values[-1]
    for candidate, value in list(zip(choice.values, values, strict=True))[-2::-1]:
        result = MutableExpression.condition(choice == candidate, value, result)
    return result
