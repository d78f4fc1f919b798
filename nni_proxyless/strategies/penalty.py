"""Differentiable expectation of an NNI ExpressionProfiler under path probabilities.

NNI 3.0's ExpectationProfilerPenalty computes with Python numbers, so it has no gradient. It also fails for spaces with
a skip, because their costs mix integers and floats. And if a sum is multiplied by a constant, it enumerates all
combinations of the sum's labels.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
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
        """Convert a penalty of NNI to one with a gradient.

        Args:
            penalty: Arguments of an ExpectationProfilerPenalty, or such an object. An object of a subclass is returned
                unchanged.

        Raises:
            InputError: The dictionary lacks a key or has an unknown key, or the profiler is not an ExpressionProfiler.
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
        """Compute the expected value of the profiler's expression.

        Args:
            sample: Mapping from labels to the probabilities of their candidates, which are numbers or scalar tensors.
        """
        return expectation(self.profiler.expression, sample)


def expectation(expression: Any, distribution: Mapping[str, Mapping[Any, Any]]) -> Any:
    """Compute E[expression] if the candidates of different labels are drawn independently.

    Sums, differences, constant factors, and products of factors without a common label are split into their parts. For
    every other term, all combinations of its labels' candidates are enumerated.

    Args:
        expression: Number, or NNI expression of categorical mutables.
        distribution: Mapping from labels to the probabilities of their candidates, which are numbers or scalar tensors.

    Returns:
        Number or scalar tensor, differentiable in the probabilities.

    Raises:
        InputError: A term has more than `MAX_COMBINATIONS` combinations to enumerate.
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
