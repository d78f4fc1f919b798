from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from nni_proxyless import decode
from nni_proxyless.decode import most_likely, most_likely_within
from nni_proxyless.errors import InputError
from nni_proxyless.latency import SpaceCosts


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
        assert most_likely(probs, candidates) == expected


def test_ties_go_to_the_earlier_candidate() -> None:
    assert most_likely({"a": torch.tensor([0.2, 0.4, 0.4])}, {"a": [10, 20, 30]}) == {"a": 20}


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
    everything = []
    for picks in itertools.product(*(range(len(c)) for c in costs.candidates.values())):
        choices = {k: costs.candidates[k][i] for k, i in zip(probs, picks, strict=True)}
        likelihood = math.fsum(math.log(float(probs[k][i])) for k, i in zip(probs, picks, strict=True))
        everything.append((costs.of(choices), likelihood))
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
    assert most_likely_within(probs, costs, 1e9) == most_likely(probs, costs.candidates)


def test_an_impossible_budget_names_the_smallest() -> None:
    costs, probs = random_case(1)
    with pytest.raises(InputError, match=f"the fastest takes {costs.smallest:.4g} ms"):
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
    """21 layers of 7 candidates with real-valued costs: the front stays far below the bound."""
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
