from __future__ import annotations

import itertools
import math
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nni_proxyless.decoding import knapsack as decode
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.decoding.knapsack import front, likeliest_within, most_likely_within
from nni_proxyless.errors import InputError
from nni_proxyless.latency import SpaceCosts
from nni_proxyless.values import budget_text


def test_most_likely_is_the_best_of_all_architectures() -> None:
    generator = torch.Generator().manual_seed(0)
    candidates = {"a": ["x", "y", "z"], "b": ["x", "y"], "c": ["p", "q", "r", "s"]}
    for _ in range(20):
        probs = {label: torch.softmax(torch.randn(len(c), generator=generator), 0) for label, c in candidates.items()}
        best = max(
            itertools.product(*(range(len(c)) for c in candidates.values())),
            key=lambda picks: math.prod(float(probs[k][i]) for k, i in zip(candidates, picks, strict=True)),
        )
        expected = {label: candidates[label][i] for label, i in zip(candidates, best, strict=True)}
        assert ArchitectureDistribution(candidates, probs).most_likely() == expected


def test_ties_go_to_the_earlier_candidate() -> None:
    assert ArchitectureDistribution({"a": [10, 20, 30]}, {"a": torch.tensor([0.2, 0.4, 0.4])}).most_likely() == {
        "a": 20
    }


def random_case(seed: int, layers: int = 5, whole: bool = False) -> tuple[SpaceCosts, dict[str, torch.Tensor]]:
    draw = random.Random(seed)
    sizes = {f"l{i}": draw.randint(2, 5) for i in range(layers)}
    costs = SpaceCosts(
        fixed=draw.uniform(0.1, 2.0),
        candidates={k: tuple(f"c{i}" for i in range(n)) for k, n in sizes.items()},
        layers={
            k: tuple(float(draw.randint(0, 3)) if whole else draw.uniform(0, 3) for _ in range(n))
            for k, n in sizes.items()
        },
    )
    probs = {k: torch.softmax(torch.tensor([draw.gauss(0, 2) for _ in range(n)]).double(), 0) for k, n in sizes.items()}
    return costs, probs


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("seed", range(15))
def test_within_a_budget_it_equals_brute_force(seed: int, whole: bool) -> None:
    costs, probs = random_case(seed, whole=whole)
    everything = enumerated(costs, probs)
    for fraction in (0.0, 0.1, 0.3, 0.6, 1.0):
        budget = costs.smallest + fraction * (costs.largest - costs.smallest)
        found = most_likely_within(probs, costs, budget)
        latency = costs.of(found)
        assert latency <= budget * (1 + 1e-9)
        likelihood = math.fsum(math.log(float(probs[k][costs.candidates[k].index(v)])) for k, v in found.items())
        best = max(value for cost, value in everything if cost <= budget * (1 + 1e-12))
        assert likelihood == pytest.approx(best)


def test_a_wide_budget_gives_the_most_likely() -> None:
    costs, probs = random_case(3)
    assert most_likely_within(probs, costs, 1e9) == ArchitectureDistribution(costs.candidates, probs).most_likely()


def test_an_impossible_budget_names_the_smallest() -> None:
    costs, probs = random_case(1)
    with pytest.raises(InputError, match=f"the fastest takes {budget_text(costs.smallest)}"):
        most_likely_within(probs, costs, 0.9 * costs.smallest)
    with pytest.raises(InputError, match="no network"):
        most_likely_within(probs, costs, float("nan"))


def test_rounding_of_large_spaces_is_never_over_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "_MAX_STATES", 50)
    for seed in range(10):
        costs, probs = random_case(seed, layers=12)
        budget = (costs.smallest + costs.largest) / 2
        assert costs.of(most_likely_within(probs, costs, budget)) <= budget


def test_the_papers_space_is_decoded_exactly() -> None:
    """Decode 21 layers of 7 candidates with real-valued costs; the number of states stays far below its limit."""
    draw = random.Random(0)
    labels = [f"l{i}" for i in range(21)]
    costs = SpaceCosts(
        5.0,
        {k: tuple(map(str, range(7))) for k in labels},
        {k: tuple(sorted(draw.uniform(0.5, 3) for _ in range(7))) for k in labels},
    )
    probs = {k: torch.softmax(torch.tensor([draw.gauss(0, 1) for _ in range(7)]), 0) for k in labels}
    budget = costs.smallest + 0.3 * (costs.largest - costs.smallest)
    found = most_likely_within(probs, costs, budget)
    assert 0.98 * budget < costs.of(found) <= budget


def enumerated(costs: SpaceCosts, probs: dict[str, torch.Tensor]) -> list[tuple[float, float]]:
    """Compute latency and log-likelihood of every architecture by enumeration."""
    found = []
    for picks in itertools.product(*(range(len(c)) for c in costs.candidates.values())):
        choices = {k: costs.candidates[k][i] for k, i in zip(probs, picks, strict=True)}
        p = [float(probs[k][i]) for k, i in zip(probs, picks, strict=True)]
        if all(value > 0 for value in p):
            found.append((costs.of(choices), math.fsum(map(math.log, p))))
    return found


@st.composite
def cases(draw: st.DrawFn) -> tuple[SpaceCosts, dict[str, torch.Tensor]]:
    """Draw spaces of up to 1,024 architectures. Costs and probabilities may be equal, and probabilities may be 0."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    cost = st.one_of(st.integers(0, 3).map(float), st.floats(0, 5, allow_nan=False))
    weight = st.one_of(st.just(1.0), st.floats(1e-6, 1.0), st.just(0.0))
    layers, probs = {}, {}
    for i, size in enumerate(sizes):
        layers[f"l{i}"] = tuple(draw(st.lists(cost, min_size=size, max_size=size)))
        weights = draw(st.lists(weight, min_size=size, max_size=size).filter(lambda values: sum(values) > 0))
        probs[f"l{i}"] = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    names = {k: tuple(f"c{i}" for i in range(len(v))) for k, v in layers.items()}
    return SpaceCosts(draw(st.floats(0.1, 2)), names, layers), probs


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases(), st.floats(0, 1), st.integers(1, 12))
def test_the_likeliest_equal_brute_force(
    case: tuple[SpaceCosts, dict[str, torch.Tensor]], part: float, count: int
) -> None:
    costs, probs = case
    everything = enumerated(costs, probs)
    latencies = [latency for latency, _ in everything]
    budget = min(latencies) + part * (max(latencies) - min(latencies))
    found = likeliest_within(probs, costs, budget, count)
    within = sorted((score for latency, score in everything if latency <= budget * (1 + 1e-12)), reverse=True)
    scores = [
        math.fsum(math.log(float(probs[k][costs.candidates[k].index(v)])) for k, v in choices.items())
        for choices in found
    ]
    assert scores == pytest.approx(within[:count])
    assert len({tuple(choices.items()) for choices in found}) == len(found)
    assert all(costs.of(choices) <= budget * (1 + 1e-9) for choices in found)
    assert found[0] == most_likely_within(probs, costs, budget)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases(), st.floats(0, 1))
def test_any_budget_equals_brute_force(case: tuple[SpaceCosts, dict[str, torch.Tensor]], part: float) -> None:
    costs, probs = case
    everything = enumerated(costs, probs)
    fastest = min(latency for latency, _ in everything)
    budget = fastest + part * (costs.largest - fastest)
    found = most_likely_within(probs, costs, budget)
    assert costs.of(found) <= budget * (1 + 1e-9)
    likelihood = math.fsum(math.log(float(probs[k][costs.candidates[k].index(v)])) for k, v in found.items())
    assert likelihood == pytest.approx(max(value for cost, value in everything if cost <= budget * (1 + 1e-12)))
    with pytest.raises(InputError, match=re.escape(f"the fastest takes {budget_text(fastest)}")):
        most_likely_within(probs, costs, 0.99 * fastest)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(cases())
def test_the_front_is_that_of_brute_force(case: tuple[SpaceCosts, dict[str, torch.Tensor]]) -> None:
    costs, probs = case
    everything = enumerated(costs, probs)
    points = front(probs, costs)
    assert [p.latency_ms for p in points] == sorted(p.latency_ms for p in points)
    for point in points:
        assert costs.of(point.choices) == point.latency_ms
        beaten_by = [v for latency, v in everything if latency <= point.latency_ms * (1 + 1e-12)]
        assert point.log_likelihood == pytest.approx(max(beaten_by))
    for latency, likelihood in everything:  # every point of the true front was found
        if all(v < likelihood - 1e-9 for other, v in everything if other <= latency + 1e-9 and v != likelihood):
            within = [p.log_likelihood for p in points if p.latency_ms <= latency * (1 + 1e-12) + 1e-9]
            assert max(within) == pytest.approx(likelihood)


def test_a_front_within_a_budget_is_its_fast_end() -> None:
    costs, probs = random_case(4)
    whole = front(probs, costs)
    budget = whole[len(whole) // 2].latency_ms
    assert front(probs, costs, budget_ms=budget) == [p for p in whole if p.latency_ms <= budget]


def test_the_front_of_the_papers_space_in_one_pass() -> None:
    draw = random.Random(0)
    labels = [f"l{i}" for i in range(21)]
    costs = SpaceCosts(
        5.0,
        {k: tuple(map(str, range(7))) for k in labels},
        {k: tuple(sorted(draw.uniform(0.5, 3) for _ in range(7))) for k in labels},
    )
    probs = {k: torch.softmax(torch.tensor([draw.gauss(0, 1) for _ in range(7)]).double(), 0) for k in labels}
    points = front(probs, costs)
    assert points[-1].choices == ArchitectureDistribution(costs.candidates, probs).most_likely()
    assert points[0].latency_ms == pytest.approx(costs.smallest)
    middle = points[len(points) // 2]
    assert most_likely_within(probs, costs, middle.latency_ms) == middle.choices
