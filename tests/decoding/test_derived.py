"""Costs that depend on quantities derived from several layers, against enumeration of all networks."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nni_proxyless.decoding import constraints as module
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import can_be_satisfied, likeliest_satisfying
from nni_proxyless.decoding.distribution import ArchitectureDistribution
from nni_proxyless.errors import InputError
from nni_proxyless.latency.cheapest_by_states import cheapest_by_states
from nni_proxyless.latency.costs import SpaceCosts
from nni_proxyless.latency.derived import FORBIDDEN, Derived
from nni_proxyless.latency.joint_costs import JointCosts, cheapest
from nni_proxyless.strategies.applied_table import with_candidates

SIZES = {"a": 2, "b": 3, "c": 3, "d": 2}
NAMES = {label: tuple(f"{label}{i}" for i in range(size)) for label, size in SIZES.items()}
Places = dict[str, int]


def remainder(places: Places) -> str:
    return f"rest {(places['b'] + 2 * places['d']) % 3}"


class Case:
    """Random costs of layers, and of two quantities, one of which may forbid combinations."""

    def __init__(self, seed: int, forbids: bool = False) -> None:
        draw = np.random.default_rng(seed)
        self.values = draw.integers(0, 3, (3, 2, 3))  # of c, a and b
        self.texts = ["zero", FORBIDDEN if forbids else "one", "two"]
        first = Derived.tabulated("first", ("c", "a", "b"), self.values, self.texts)
        second = Derived.stepwise(
            "second", {"b": 3, "d": 2}, 0, lambda s, layer, c: s + (2 * c if layer else c), lambda s: f"rest {s % 3}"
        )
        self.layers = {label: tuple(draw.uniform(0, 3, size).tolist()) for label, size in SIZES.items()}
        shapes: list[tuple[str, ...]] = [("a", "second"), ("second",)]
        shapes += [] if forbids else [("first",), ("d", "first")]
        sizes = {**SIZES, "first": len(first.values), "second": len(second.values)}
        self.joint = {of: draw.uniform(0, 6, [sizes[k] for k in of]) for of in shapes}
        joint = tuple(JointCosts(of, tuple(array.ravel().tolist())) for of, array in self.joint.items())
        self.costs = SpaceCosts(1.0, NAMES, self.layers, "ms", joint, (first, second))
        probs = {label: torch.tensor(draw.dirichlet(np.ones(size))) for label, size in SIZES.items()}
        self.probs: dict[str, Tensor] = probs

    def networks(self) -> list[tuple[dict[str, str], float, float]]:
        """All networks that are not forbidden, with log-likelihood and cost by hand."""
        found = []
        for chosen in itertools.product(*map(range, SIZES.values())):
            places = dict(zip(SIZES, chosen, strict=True))
            what = self.texts[self.values[places["c"], places["a"], places["b"]]]
            if what == FORBIDDEN:
                continue
            index: dict[str, Any] = {**places, "second": self.costs.derived[1].values.index(remainder(places))}
            index["first"] = self.costs.derived[0].values.index(what)
            cost = 1.0 + sum(of[places[label]] for label, of in self.layers.items())
            cost += sum(float(array[tuple(index[k] for k in of)]) for of, array in self.joint.items())
            likelihood = sum(math.log(float(self.probs[label][place])) for label, place in places.items())
            found.append(({label: NAMES[label][place] for label, place in places.items()}, likelihood, cost))
        return found


@pytest.mark.parametrize("seed", range(4))
def test_costs_and_expectations_are_those_of_all_networks(seed: int) -> None:
    case = Case(seed)
    known = case.networks()
    exact = [cost for _, _, cost in known]
    assert [case.costs.of(choices) for choices, _, _ in known] == pytest.approx(exact)
    columns = {label: [choices[label] for choices, _, _ in known] for label in NAMES}
    assert case.costs.of_many(columns).tolist() == pytest.approx(exact)
    assert (case.costs.smallest, case.costs.largest, case.costs.mean) == pytest.approx(
        (min(exact), max(exact), np.mean(exact))
    )
    expected = math.fsum(math.exp(likelihood) * cost for _, likelihood, cost in known)
    alpha = {label: p.log().requires_grad_() for label, p in case.probs.items()}
    found = case.costs.expected({label: torch.softmax(a, 0) for label, a in alpha.items()})
    assert found.item() == pytest.approx(expected)
    found.backward()
    for label, a in alpha.items():  # central differences
        for place in range(len(a)):
            sides = []
            for change in (1e-5, -1e-5):
                moved = {k: p.detach().clone() for k, p in alpha.items()}
                moved[label][place] += change
                sides.append(float(case.costs.expected({k: torch.softmax(p, 0) for k, p in moved.items()})))
            assert a.grad is not None
            assert float(a.grad[place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-6)
    fixed, layers = case.costs.averaged
    assert fixed + sum(np.mean(of) for of in layers.values()) == pytest.approx(np.mean(exact))


@pytest.mark.parametrize("forbids", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_decoding_is_that_of_brute_force(seed: int, forbids: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(seed, forbids)
    known = case.networks()
    assert (case.costs.smallest, case.costs.largest) == pytest.approx(
        (min(cost for _, _, cost in known), max(cost for _, _, cost in known))
    )
    for part in (0.2, 0.6):
        budget = float(np.quantile([cost for _, _, cost in known], part))
        within = sorted((n for n in known if n[2] <= budget), key=lambda n: -n[1])
        limits = [Constraint("phone", budget, case.costs)]
        assert can_be_satisfied(case.probs, limits)
        wanted = [choices for choices, _, _ in within[:5]]
        assert likeliest_satisfying(case.probs, limits, 5) == wanted
        with monkeypatch.context() as patched:
            patched.setattr(module, "_FIRST_WIDTH", 1)
            assert likeliest_satisfying(case.probs, limits, 5) == wanted
            patched.setattr(module, "_LARGEST_JOINT_WIDTH", 0)  # then integer programming takes over
            assert likeliest_satisfying(case.probs, limits, 5) == wanted
    with pytest.raises(InputError, match="the smallest value of any network is"):
        likeliest_satisfying(case.probs, [Constraint("phone", 0.99 * case.costs.smallest, case.costs)])
    if forbids:
        names = [choices for choices, _, _ in known]
        found = ArchitectureDistribution(NAMES, case.probs, case.costs, lambda choices: dict(choices) in names)
        assert found.k_most_likely(5, budget) == wanted


def test_pruned_paths_and_reordered_candidates_keep_the_quantities() -> None:
    case = Case(1)
    turned = {label: tuple(reversed(of)) for label, of in NAMES.items()}
    costs = with_candidates(case.costs, turned)
    for choices, _, cost in case.networks():
        assert costs.of(choices) == pytest.approx(cost)
    left = [n for n in case.networks() if n[0]["b"] != "b0"]
    case.probs["b"] = torch.cat([torch.zeros(1), case.probs["b"][1:]])  # not a distribution, but the order is the same
    budget = float(np.median([cost for _, _, cost in left]))
    wanted = max((n for n in left if n[2] <= budget), key=lambda n: n[1])[0]
    assert likeliest_satisfying(case.probs, [Constraint("phone", budget, case.costs)]) == [wanted]


@pytest.mark.parametrize("seed", range(5))
def test_the_cheapest_network_by_states_is_that_of_the_integer_programme(seed: int) -> None:
    draw = np.random.default_rng(seed)
    values = draw.integers(0, 4, (2, 3, 3))
    quantities = [
        Derived.tabulated(name, ("x", "y", "z"), (values + shift * draw.integers(0, 2, values.shape)) % 4, texts)
        for name, shift, texts in (("p", 0, ["0", "1", "2", "3"]), ("q", 1, ["0", "1", "2", FORBIDDEN]))
    ]
    layers = {"x": draw.normal(size=2), "y": draw.normal(size=3), "z": draw.normal(size=3), "free": draw.normal(size=4),
              "alone": draw.normal(size=3)} | {q.name: np.zeros(q.allowed) for q in quantities}  # fmt: skip
    factors = [([5, 3], draw.normal(size=(quantities[0].allowed, 4))), ([6], draw.normal(size=quantities[1].allowed))]
    found = cheapest_by_states(layers, factors, quantities)
    assert found == cheapest(layers, factors, quantities)
    assert cheapest_by_states(layers, [([5, 0], draw.normal(size=(4, 2)))], quantities) is None
    assert cheapest_by_states(layers, [([5, 6], draw.normal(size=(4, 3)))], quantities) is None


def test_draws_have_the_wanted_value_and_reach_all_combinations() -> None:
    quantity = Case(0).costs.derived[0]
    generator = random.Random(0)
    for value, text in enumerate(quantity.values):
        of = {tuple(sorted(p.items())) for p in all_places() if quantity.places_of(p) == value}
        drawn = {tuple(sorted((quantity.draw(value, generator) or {}).items())) for _ in range(400)}
        assert drawn == of, text
        given = quantity.draw(value, generator, {"a": 1})
        assert given is None or (given["a"] == 1 and quantity.places_of(given) == value)
    constant = Derived.tabulated("same", ("a",), np.array([0, 1]), ["x", "y"])
    assert constant.draw(0, generator, {"a": 1}) is None


def all_places() -> list[Places]:
    return [dict(zip("cab", chosen, strict=True)) for chosen in itertools.product(range(3), range(2), range(3))]
