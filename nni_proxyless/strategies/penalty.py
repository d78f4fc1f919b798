"""The expectation of any NNI ExpressionProfiler under path probabilities, with a gradient.

NNI 3.0's own ExpectationProfilerPenalty takes Python numbers, so nothing can be learnt from it; it also refuses
spaces with a skip (mixed whole and floating-point costs), and enumerates jointly what is merely scaled.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
from nni.mutable import MutableExpression
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.oneshot.pytorch.supermodule._expression_utils import traverse_all_options
from nni.nas.profiler import ExpressionProfiler

from ..errors import InputError

MAX_COMBINATIONS = 100_000


class DifferentiablePenalty(ExpectationProfilerPenalty):
    """NNI's penalty with an expectation that is differentiable in the path probabilities."""

    @classmethod
    def of(cls, penalty: Mapping[str, Any] | ExpectationProfilerPenalty) -> ExpectationProfilerPenalty:
        """Make one of NNI's dictionary or of NNI's object; an object of a user's own class is left as it is.

        Raises:
            InputError: The dictionary lacks a key, has an unknown one, or its profiler has no expression.
        """
        if isinstance(penalty, Mapping):
            try:
                made = cls(**penalty)
            except TypeError as reason:
                raise InputError(
                    f"penalty must have profiler and baseline, and may have scale, nonlinear and aggregate: {reason}"
                ) from reason
        elif type(penalty) is ExpectationProfilerPenalty:
            made = cls(
                penalty.profiler,
                penalty.baseline,
                penalty.scale,
                nonlinear=penalty.nonlinear,
                aggregate=penalty.aggregate,
            )
        else:
            return penalty
        if not isinstance(made.profiler, ExpressionProfiler):
            raise InputError(
                f"penalty needs an ExpressionProfiler, got {type(made.profiler).__name__}: only an expression has "
                "an expectation"
            )
        return made

    def profile(self, sample: Mapping[str, Mapping[Any, Any]]) -> Any:
        """Expectation under label to candidate to probability (a number or a tensor)."""
        return expectation(self.profiler.expression, sample)


def expectation(expression: Any, distribution: Mapping[str, Mapping[Any, Any]]) -> Any:
    """E[expression] when each label's candidate is drawn on its own.

    Sums, differences, constant factors and products of terms without a common label are taken apart; what is left
    is enumerated.

    Args:
        expression: A number or an NNI expression of categorical mutables.
        distribution: Label to candidate to probability, numbers or scalar tensors.

    Returns:
        A number or a scalar tensor, differentiable in the probabilities.

    Raises:
        InputError: A term depends on too many labels at once to be enumerated.
    """
    if not isinstance(expression, MutableExpression):
        return float(expression)
    function = getattr(expression, "function", None)
    arguments = list(getattr(expression, "arguments", ()))
    if function in (operator.add, operator.sub):
        left, right = (expectation(argument, distribution) for argument in arguments)
        return left + right if function is operator.add else left - right
    if function is operator.neg:
        return -expectation(arguments[0], distribution)
    if function is operator.mul and not _labels(arguments[0]) & _labels(arguments[1]):
        return expectation(arguments[0], distribution) * expectation(arguments[1], distribution)
    if function is operator.truediv and not _labels(arguments[1]):
        return expectation(arguments[0], distribution) / float(arguments[1])
    combinations = math.prod(len(distribution[label]) for label in _labels(expression))
    if combinations > MAX_COMBINATIONS:
        raise InputError(
            f"a term of the profiler's expression depends on {len(_labels(expression))} labels at once "
            f"({combinations} combinations); write it as a sum of terms with few labels each"
        )
    return sum(float(value) * p for value, p in traverse_all_options(expression, dict(distribution)))


def _labels(expression: Any) -> set[str]:
    return set(expression.simplify()) if isinstance(expression, MutableExpression) else set()
