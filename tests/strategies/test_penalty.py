from __future__ import annotations

import itertools
import math
from typing import Any

import nni
import pytest
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from nni.nas.profiler import ExpressionProfiler, Profiler

from nni_proxyless.errors import InputError
from nni_proxyless.strategies.penalty import DifferentiablePenalty, expectation

A, B, C = nni.choice("a", [1, 2, 3]), nni.choice("b", [0, 5]), nni.choice("c", ["x", "y"])
DISTRIBUTION = {"a": {1: 0.2, 2: 0.5, 3: 0.3}, "b": {0: 0.4, 5: 0.6}, "c": {"x": 0.9, "y": 0.1}}


def mean(expression: Any) -> float:
    total = 0.0
    for picks in itertools.product(*(d.items() for d in DISTRIBUTION.values())):
        sample = {label: value for label, (value, _) in zip(DISTRIBUTION, picks, strict=True)}
        total += math.prod(p for _, p in picks) * expression.evaluate(sample)
    return total


@pytest.mark.parametrize(
    "expression",
    [
        A,
        A + B,
        A - 2 * B,
        -A + 4.5,
        (A + B) / 1e6,
        A * B,
        A * A,
        (A + B) * A,
        nni.mutable.MutableExpression.condition(C == "x", A * 1.0, B),
        nni.mutable.MutableExpression.max(A, B) / (A + 1),
    ],
)
def test_expectation_is_the_mean_over_all_samples(expression: Any) -> None:
    assert expectation(expression, DISTRIBUTION) == pytest.approx(mean(expression))


def test_a_scaled_sum_over_many_labels_is_not_enumerated() -> None:
    labels = [f"l{i}" for i in range(40)]
    total: Any = 0
    for label in labels:
        total = total + nni.choice(label, [1, 2, 3, 4])
    probs = {label: torch.full((4,), 0.25, requires_grad=True) for label in labels}
    value = expectation(total / 1e6, {k: dict(zip((1, 2, 3, 4), p.unbind(), strict=True)) for k, p in probs.items()})
    assert value.item() == pytest.approx(40 * 2.5 / 1e6)
    value.backward()
    torch.testing.assert_close(probs["l7"].grad, torch.tensor([1.0, 2.0, 3.0, 4.0]) / 1e6)


def test_too_many_labels_in_one_term_are_refused() -> None:
    product: Any = 1
    for i in range(20):
        product = nni.mutable.MutableExpression.max(product, nni.choice(f"l{i}", [1, 2, 3]))
    with pytest.raises(InputError, match="20 labels at once"):
        expectation(product, {f"l{i}": dict.fromkeys((1, 2, 3), 1 / 3) for i in range(20)})


class Fixed(ExpressionProfiler):
    def __init__(self, model_space: Any) -> None:
        self.expression = A


@pytest.mark.parametrize("nonlinear", ["linear", "positive", "negative", "absolute"])
@pytest.mark.parametrize("aggregate", ["add", "mul"])
def test_dictionary_and_nnis_object_mean_the_same(nonlinear: Any, aggregate: Any) -> None:
    settings = {"baseline": 1.5, "scale": 0.5, "nonlinear": nonlinear, "aggregate": aggregate}
    by_dictionary = DifferentiablePenalty.of({"profiler": Fixed(None), **settings})
    by_object = DifferentiablePenalty.of(ExpectationProfilerPenalty(Fixed(None), **settings))
    nnis = ExpectationProfilerPenalty(Fixed(None), **settings)
    loss = torch.tensor(2.0)
    values = [float(p(loss, {"a": DISTRIBUTION["a"]})[0]) for p in (by_dictionary, by_object, nnis)]
    assert values[0] == values[1] == pytest.approx(values[2])


def test_bad_penalties_are_refused() -> None:
    with pytest.raises(InputError, match="must have profiler and baseline"):
        DifferentiablePenalty.of({"profiler": Fixed(None)})
    with pytest.raises(InputError, match="needs an ExpressionProfiler, got Profiler"):
        DifferentiablePenalty.of({"profiler": Profiler(ModelSpace()), "baseline": 1.0})
