"""A distribution over architectures against enumeration of a small space."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from nni_proxyless.decoding.budget import Budget, BudgetRequest
from nni_proxyless.decoding.budgets import Limit, parse_limit
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.decoding.knapsack import most_likely_within
from nni_proxyless.errors import InputError
from nni_proxyless.latency.costs import SpaceCosts

CANDIDATES = {"a": ("k3", "k5", "skip"), "b": ("k3", "k5"), "c": ([0], [1], [0, 1])}
COSTS = SpaceCosts(0.5, CANDIDATES, {"a": (1.0, 2.5, 0.0), "b": (0.7, 1.9), "c": (0.2, 0.3, 0.6)})


def distribution(seed: int = 0) -> ArchitectureDistribution:
    generator = torch.Generator().manual_seed(seed)
    probs = {
        label: torch.softmax(torch.randn(len(of), generator=generator).double(), 0) for label, of in CANDIDATES.items()
    }
    return ArchitectureDistribution(CANDIDATES, probs, COSTS)


def enumerated(found: ArchitectureDistribution) -> list[tuple[float, float, dict[str, object]]]:
    """Probability, latency and choices of every architecture, the likeliest first."""
    listed = []
    for picks in itertools.product(*(range(len(of)) for of in CANDIDATES.values())):
        choices = {label: CANDIDATES[label][i] for label, i in zip(CANDIDATES, picks, strict=True)}
        probability = math.prod(float(found.probs[label][i]) for label, i in zip(CANDIDATES, picks, strict=True))
        latency = 0.5 + sum(COSTS.layers[label][i] for label, i in zip(CANDIDATES, picks, strict=True))
        listed.append((probability, latency, choices))
    return sorted(listed, key=lambda row: -row[0])


@pytest.mark.parametrize("seed", range(5))
def test_every_question_equals_enumeration(seed: int) -> None:
    found = distribution(seed)
    every = enumerated(found)
    assert sum(row[0] for row in every) == pytest.approx(1.0)
    assert found.most_likely() == every[0][2]
    assert found.k_most_likely(5) == [row[2] for row in every[:5]]
    for budget in (1.5, 2.0, 3.1):
        within = [row for row in every if row[1] <= budget]
        assert found.most_likely(budget) == within[0][2]
        assert found.k_most_likely(4, budget) == [row[2] for row in within[:4]]
    assert found.expected_ms() == pytest.approx(sum(p * latency for p, latency, _ in every))
    assert found.log_likelihoods([row[2] for row in every]) == pytest.approx([math.log(row[0]) for row in every])
    entropies = [-sum(float(p) * math.log(float(p)) for p in probs) for probs in found.probs.values()]
    assert found.mean_entropy() == pytest.approx(sum(entropies) / 3)
    points = found.front()
    for point in points:
        best = max(row[0] for row in every if row[1] <= point.latency_ms + 1e-9)
        assert point.log_likelihood == pytest.approx(math.log(best))


def test_a_pruned_path_is_never_decoded() -> None:
    found = distribution()
    probs = dict(found.probs)
    probs["b"] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    pruned = ArchitectureDistribution(CANDIDATES, probs, COSTS)
    assert all(choices["b"] == "k5" for choices in pruned.k_most_likely(100))
    assert pruned.log_likelihoods([{"a": "k3", "b": "k3", "c": [0]}]) == [-math.inf]


def test_costs_of_another_device_change_nothing_else() -> None:
    found = distribution()
    other = SpaceCosts(0.0, CANDIDATES, {label: (1.0,) * len(of) for label, of in CANDIDATES.items()})
    assert found.with_costs(other).expected_ms() == pytest.approx(3.0)
    assert found.with_costs(other).probs is found.probs
    plain = found.with_costs(None)
    assert plain.expected_ms() is None
    assert plain.most_likely() == found.most_likely()
    with pytest.raises(InputError, match="a budget of 2 ms needs a latency table"):
        plain.most_likely(2.0)
    with pytest.raises(InputError, match="a front needs a latency table"):
        plain.front()


def test_a_budget_is_resolved_once_against_a_table() -> None:
    assert BudgetRequest.of(None, None, hard=True) is None
    assert BudgetRequest(ms=2.0).resolve(COSTS) == Budget(2.0, hard=True)
    part = BudgetRequest(fraction=0.5, hard=False).resolve(COSTS)
    assert part == Budget(0.5 * (0.5 + 2.5 + 1.9 + 0.6), hard=False)
    assert part.limit_ms is None
    assert Budget(2.0, hard=True).limit_ms == 2.0
    # A mere reference may be below the fastest network; a limit may not.
    assert BudgetRequest(ms=0.1, hard=False).resolve(COSTS).ms == 0.1
    with pytest.raises(InputError, match=r"no network of this space takes 0.1 ms or less; the fastest takes 1.4 ms"):
        BudgetRequest(ms=0.1).resolve(COSTS)


def test_the_latency_of_the_fastest_network_as_it_is_printed_is_a_budget() -> None:
    for costs in (
        SpaceCosts(1.0, dict.fromkeys("abc", ("x",)), dict.fromkeys("abc", (0.1,))),  # a sum above 1.3 by rounding
        SpaceCosts(1.23441, {"a": ("x",)}, {"a": (0.0,)}),
    ):
        with pytest.raises(InputError, match="the fastest takes") as raised:
            BudgetRequest(ms=1.0).resolve(costs)
        printed = float(str(raised.value).split("the fastest takes ")[1].split(" ms")[0])
        assert printed == pytest.approx(costs.smallest, rel=1e-3)
        assert BudgetRequest(ms=printed).resolve(costs).ms == printed
        probs = {label: torch.ones(1) for label in costs.layers}
        assert most_likely_within(probs, costs, printed) == dict.fromkeys(costs.layers, "x")
        with pytest.raises(InputError, match=f"the fastest takes {printed:g} ms"):
            most_likely_within(probs, costs, 1.0)


def test_numbers_of_numpy_are_budgets() -> None:
    found = BudgetRequest.of(np.float32(2.5), None, hard=True)
    assert found == BudgetRequest(ms=2.5)
    assert type(found.ms) is float
    assert parse_limit("parameters", np.int64(300)) == Limit("parameters", 300.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a budget needs budget_ms="),
        ({"ms": 1.0, "fraction": 0.5}, "give budget_ms=1.0 or budget_fraction=0.5, not both"),
        ({"ms": 0.0}, "budget_ms must be a number greater than 0, in milliseconds, got 0.0"),
        ({"ms": math.nan}, "budget_ms must be a number greater than 0, in milliseconds, got nan"),
        ({"ms": "5"}, "budget_ms must be a number greater than 0, in milliseconds, got '5'"),
        ({"ms": True}, "budget_ms must be a number greater than 0, in milliseconds, got True"),
        ({"fraction": True}, "budget_fraction must be a number above 0 and at most 1, got True"),
        ({"fraction": 1.5}, "budget_fraction must be a number above 0 and at most 1, got 1.5"),
    ],
)
def test_bad_budgets_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BudgetRequest(**arguments)


def test_probabilities_at_another_temperature_are_those_of_its_softmax() -> None:
    alpha = torch.tensor([0.3, -1.2, 0.9]).double()
    at_one = ArchitectureDistribution({"a": ("x", "y", "z")}, {"a": torch.softmax(alpha, 0)})
    for temperature in (1.0, 0.5, 0.1):
        found = at_one.at_temperature(temperature).probs["a"]
        assert found.tolist() == pytest.approx(torch.softmax(alpha / temperature, 0).tolist())
