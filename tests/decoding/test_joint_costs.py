"""Costs of several layers at once: expectation, extremes and decoding, against enumeration of all networks."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from nni_proxyless.decoding import constraints as module
from nni_proxyless.decoding.budget import BudgetRequest
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import can_be_satisfied, likeliest_satisfying
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.decoding.random_networks import draw_within
from nni_proxyless.errors import InputError
from nni_proxyless.latency.costs import SpaceCosts
from nni_proxyless.latency.joint_costs import JointCosts
from nni_proxyless.values import budget_text

NAMES: dict[str, tuple[str, ...]] = {"w0": ("4", "8", "16"), "w1": ("4", "8"), "k": ("3", "5", "7"), "d": ("1", "2")}
JOINT = (("w0", "w1"), ("w1", "w0", "k"), ("d", "k"), ("k", "d"))


def costs_of(seed: int) -> SpaceCosts:
    """Random costs of single layers, of pairs and of three layers; some of the pairs are given twice."""
    draw = np.random.default_rng(seed)
    layers = {label: tuple(draw.gamma(2.0, 0.3, len(of)).tolist()) for label, of in NAMES.items()}
    joint = tuple(
        JointCosts(labels, tuple(draw.gamma(1.0, 1.0, math.prod(len(NAMES[k]) for k in labels)).tolist()))
        for labels in JOINT
    )
    return SpaceCosts(0.5, NAMES, layers, joint=joint)


def networks() -> Iterator[dict[str, str]]:
    for names in itertools.product(*NAMES.values()):
        yield dict(zip(NAMES, names, strict=True))


def by_hand(costs: SpaceCosts, choices: dict[str, str]) -> float:
    """Sum the costs of one network, without the code under test."""
    total = costs.fixed + sum(of[NAMES[label].index(choices[label])] for label, of in costs.layers.items())
    for joint in costs.joint:
        place = 0
        for label in joint.labels:
            place = place * len(NAMES[label]) + NAMES[label].index(choices[label])
        total += joint.values[place]
    return total


def probs_of(seed: int) -> dict[str, Tensor]:
    draw = np.random.default_rng(seed)
    return {label: torch.tensor(draw.dirichlet(np.full(len(of), 0.8))) for label, of in NAMES.items()}


def log_likelihood(probs: dict[str, Tensor], choices: dict[str, str]) -> float:
    values = [float(probs[label][NAMES[label].index(name)]) for label, name in choices.items()]
    return sum(map(math.log, values)) if min(values) > 0 else -math.inf


@pytest.mark.parametrize("seed", range(3))
def test_costs_of_networks_and_their_extremes(seed: int) -> None:
    costs = costs_of(seed)
    exact = [by_hand(costs, choices) for choices in networks()]
    assert [costs.of(choices) for choices in networks()] == pytest.approx(exact)
    columns = {label: [choices[label] for choices in networks()] for label in NAMES}
    assert costs.of_many(columns).tolist() == pytest.approx(exact)
    assert (costs.smallest, costs.largest, costs.mean) == pytest.approx((min(exact), max(exact), np.mean(exact)))
    assert by_hand(costs, costs.cheapest) == pytest.approx(min(exact))


def test_expected_costs_are_the_mean_over_all_networks_and_have_its_gradient() -> None:
    costs = costs_of(0)
    alpha = {label: torch.randn(len(of), dtype=torch.float64, requires_grad=True) for label, of in NAMES.items()}

    def expected_by_hand() -> Tensor:
        probs = {label: torch.softmax(a, 0) for label, a in alpha.items()}
        total = torch.zeros((), dtype=torch.float64)
        for choices in networks():
            p = torch.stack([probs[label][NAMES[label].index(name)] for label, name in choices.items()]).prod()
            total = total + p * by_hand(costs, choices)
        return total

    expected = costs.expected({label: torch.softmax(a, 0) for label, a in alpha.items()})
    exact = expected_by_hand()
    torch.testing.assert_close(expected, exact)
    found = torch.autograd.grad(expected, list(alpha.values()))
    wanted = torch.autograd.grad(exact, list(alpha.values()))
    torch.testing.assert_close(found, wanted)
    assert all(float(part.abs().max()) > 0 for part in found)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("pruned", [False, True])
def test_decoding_within_a_budget_is_that_of_brute_force(seed: int, pruned: bool) -> None:
    costs, probs = costs_of(seed), probs_of(seed)
    if pruned:
        probs["k"] = torch.tensor([0.0, 0.45, 0.55], dtype=torch.float64)
    left = [choices for choices in networks() if log_likelihood(probs, choices) > -math.inf]
    budget = float(np.quantile([by_hand(costs, choices) for choices in left], 0.3))
    within = [choices for choices in left if by_hand(costs, choices) <= budget * (1 + 1e-12)]
    wanted = sorted(within, key=lambda choices: -log_likelihood(probs, choices))
    found = ArchitectureDistribution(NAMES, probs, costs)
    assert found.most_likely(budget) == wanted[0]
    assert found.k_most_likely(7, budget) == wanted[:7]
    assert len(found.k_most_likely(1000, budget)) == len(within)
    front = found.front()
    assert [point.latency_ms for point in front] == sorted(point.latency_ms for point in front)
    for point in front:
        better = [c for c in left if by_hand(costs, c) <= point.latency_ms * (1 + 1e-12)]
        assert point.log_likelihood == pytest.approx(max(log_likelihood(probs, c) for c in better))


def test_narrow_passes_and_integer_programming_find_the_same_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    costs, probs = costs_of(0), probs_of(0)
    budget = float(np.quantile([by_hand(costs, choices) for choices in networks()], 0.5))
    found = ArchitectureDistribution(NAMES, probs, costs)
    wanted = found.k_most_likely(6, budget)
    monkeypatch.setattr(module, "_FIRST_WIDTH", 1)
    assert found.k_most_likely(6, budget) == wanted
    monkeypatch.setattr(module, "_LARGEST_JOINT_WIDTH", 0)  # then integer programming takes over
    assert found.k_most_likely(6, budget) == wanted


@pytest.mark.parametrize("seed", range(3))
def test_decoding_within_several_budgets_is_that_of_brute_force(seed: int) -> None:
    probs = probs_of(seed)
    additive = SpaceCosts(1.0, NAMES, costs_of(seed + 20).layers, unit="params")
    limits = []
    for name, costs in {"phone": costs_of(seed), "board": costs_of(seed + 10), "parameters": additive}.items():
        limit = float(np.quantile([by_hand(costs, choices) for choices in networks()], 0.6))
        limits.append(Constraint(name, limit, costs))
    within = [c for c in networks() if all(by_hand(k.costs, c) <= k.limit * (1 + 1e-12) for k in limits)]
    wanted = sorted(within, key=lambda choices: -log_likelihood(probs, choices))
    assert wanted
    assert likeliest_satisfying(probs, limits, 5) == wanted[:5]
    assert can_be_satisfied(probs, limits)


def test_a_budget_that_no_network_keeps_is_explained() -> None:
    costs, probs = costs_of(0), probs_of(0)
    exact = [by_hand(costs, choices) for choices in networks()]
    low = Constraint("phone", 0.99 * min(exact), costs)
    assert not can_be_satisfied(probs, [low])
    shown = math.ceil(1000 * min(exact)) / 1000  # rounded up, so that a network is within it
    with pytest.raises(InputError, match=rf"phone <= .* smallest value of any network is {shown:.4g} ms"):
        likeliest_satisfying(probs, [low])
    with pytest.raises(
        InputError, match=f"the fastest takes {budget_text(min(exact))}, the slowest {max(exact):.4g} ms"
    ):
        BudgetRequest(0.99 * min(exact)).resolve(costs)
    # Each budget can be kept, but both together cannot.
    other = SpaceCosts(10.0, NAMES, {k: tuple(-v for v in of) for k, of in costs.layers.items()}, joint=tuple(
        JointCosts(j.labels, tuple(-v for v in j.values)) for j in costs.joint
    ))  # fmt: skip
    middle = float(np.median(exact))
    pair = [Constraint("phone", middle, costs), Constraint("board", 10.5 - middle - 0.01, other)]
    with pytest.raises(InputError, match=r"phone <= .* and board <= .* together; possible: phone of at least"):
        likeliest_satisfying(probs, pair)


def test_random_networks_within_a_budget_of_the_fastest_network_alone() -> None:
    costs = costs_of(1)
    drawn = draw_within(NAMES, costs, costs.smallest, 3, random.Random(0))
    assert drawn == [costs.cheapest]
    middle = float(np.median([by_hand(costs, choices) for choices in networks()]))
    for choices in draw_within(NAMES, costs, middle, 5, random.Random(0)):
        assert by_hand(costs, choices) <= middle


def test_a_chain_of_widths_is_decoded_quickly_and_exactly() -> None:
    """Forty layers, each of whose costs depends on its own width and on that of the layer before: exact by Viterbi."""
    draw = np.random.default_rng(0)
    labels = [f"w{i:02d}" for i in range(40)]
    names = dict.fromkeys(labels, ("4", "8", "16"))
    arrays = [draw.gamma(1.0, 1.0, (3, 3)) for _ in labels[1:]]
    joint = tuple(
        JointCosts(pair, tuple(values.ravel().tolist()))
        for pair, values in zip(itertools.pairwise(labels), arrays, strict=True)
    )
    costs = SpaceCosts(0.0, names, dict.fromkeys(labels, (0.0, 0.0, 0.0)), joint=joint)
    best = np.zeros(3)
    for values in arrays:
        best = (best[:, None] + values).min(axis=0)
    assert costs.smallest == pytest.approx(best.min())
    probs = {label: torch.tensor(draw.dirichlet(np.ones(3))) for label in labels}
    # The most likely network of a Lagrangian relaxation is optimal for the budget that it exactly uses.
    weight = 0.3
    scores, parents = np.log(probs[labels[0]].numpy()), []
    for label, values in zip(labels[1:], arrays, strict=True):
        table = scores[:, None] - weight * values + np.log(probs[label].numpy())
        parents.append(table.argmax(axis=0))
        scores = table.max(axis=0)
    place = int(scores.argmax())
    picks = [place]
    for parent in reversed(parents):
        picks.append(int(parent[picks[-1]]))
    wanted = {label: names[label][pick] for label, pick in zip(labels, reversed(picks), strict=True)}
    assert ArchitectureDistribution(names, probs, costs).most_likely(costs.of(wanted)) == wanted
