"""Fronts in several quantities, against enumeration of all architectures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nni_proxyless.decoding import pareto_front as module
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import likeliest_satisfying
from nni_proxyless.decoding.pareto import non_dominated
from nni_proxyless.decoding.pareto_front import LIKELIHOOD, FrontNetwork, pareto_front, spread
from nni_proxyless.errors import InputError
from nni_proxyless.latency.costs import SpaceCosts

LAYERS, CANDIDATES = 4, 4
NAMES = {f"layer{i}": tuple(f"c{j}" for j in range(CANDIDATES)) for i in range(LAYERS)}


@pytest.mark.parametrize("dims", range(1, 6))
def test_the_filter_keeps_what_no_other_point_beats(dims: int) -> None:
    rng = np.random.default_rng(dims)
    for _ in range(60):
        points = rng.integers(0, rng.integers(2, 12), (rng.integers(1, 70), dims)).astype(float)
        expected = [
            i
            for i, point in enumerate(points)
            if not any(
                np.all(other <= point) and (np.any(other < point) or j < i) for j, other in enumerate(points) if j != i
            )
        ]
        found = non_dominated(points).tolist()
        assert sorted(found) == expected
        assert [tuple(points[i]) for i in found] == sorted(tuple(points[i]) for i in found)
    assert len(non_dominated(np.zeros((0, dims)))) == 0
    with pytest.raises(ValueError, match="coordinate"):
        non_dominated(np.zeros((3, 0)))


def quantity(
    rng: np.random.Generator, name: str, *, whole: bool, combine: str = "sum", limit: float = 1.0
) -> Constraint:
    """A quantity whose limit is a part of the largest value. Whole numbers make many networks equal."""
    values = rng.gamma(2.0, 1.0, (LAYERS, CANDIDATES)) if not whole else rng.integers(0, 4, (LAYERS, CANDIDATES))
    costs = SpaceCosts(0.5, NAMES, {label: tuple(map(float, row)) for label, row in zip(NAMES, values, strict=True)})
    free = Constraint(name, math.inf, costs, combine)  # type: ignore[arg-type]
    return Constraint(name, limit * free.largest if limit < 1 else math.inf, costs, combine)  # type: ignore[arg-type]


def probabilities(rng: np.random.Generator) -> dict[str, Tensor]:
    probs = {label: torch.tensor(rng.dirichlet(np.full(CANDIDATES, 0.8))) for label in NAMES}
    probs["layer2"][1] = 0.0  # pruned
    return probs


def brute_force(
    probs: dict[str, Tensor], names: list[str], quantities: list[Constraint]
) -> dict[tuple[float, ...], float]:
    """Values of all networks of the front, and the largest log-likelihood of a network with these values."""
    found: dict[tuple[float, ...], float] = {}
    for picks in itertools.product(range(CANDIDATES), repeat=LAYERS):
        if picks[2] == 1:
            continue
        log = sum(math.log(float(probs[label][i])) for label, i in zip(NAMES, picks, strict=True))
        values: dict[str, float] = {LIKELIHOOD: -log}
        for q in quantities:
            chosen = [q.costs.layers[label][i] for label, i in zip(NAMES, picks, strict=True)]
            values[q.name] = max(0.5, *chosen) if q.combine == "max" else 0.5 + sum(chosen)
        if all(values[q.name] <= q.limit * (1 + 1e-12) for q in quantities):
            key = tuple(round(values[name], 9) for name in names)
            found[key] = max(found.get(key, -math.inf), log)
    beaten = {
        key
        for key, other in itertools.product(found, found)
        if key != other and all(b <= a for a, b in zip(key, other, strict=True))
    }
    return {key: log for key, log in found.items() if key not in beaten}


def check(found: list[FrontNetwork], probs: dict[str, Tensor], names: list[str], quantities: list[Constraint]) -> None:
    expected = brute_force(probs, names, quantities)
    keys = []
    for network in found:
        assert list(network.values) == names
        signed = {**network.values, LIKELIHOOD: -network.values.get(LIKELIHOOD, 0.0)}
        keys.append(tuple(round(signed[name], 9) for name in names))
        for q in quantities:
            if q.name in names:
                assert q.of(network.choices) == network.values[q.name]
        if LIKELIHOOD in names or len(names) == 2:
            log = sum(math.log(float(probs[k][int(v[1:])])) for k, v in network.choices.items())
            assert log == pytest.approx(expected[keys[-1]])
    assert sorted(keys) == sorted(expected)
    assert keys == sorted(keys)


@pytest.mark.parametrize("whole", [False, True], ids=["real", "whole"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "names",
    [
        ["likelihood", "phone"], ["likelihood", "phone", "memory"], ["phone", "likelihood", "board"],
        ["phone", "board"], ["board", "memory"], ["phone", "board", "memory"],
    ],
)  # fmt: skip
def test_the_front_is_that_of_brute_force(names: list[str], seed: int, whole: bool) -> None:
    rng = np.random.default_rng(seed)
    probs = probabilities(rng)
    made = {
        "phone": quantity(rng, "phone", whole=whole),
        "board": quantity(rng, "board", whole=whole),
        "memory": quantity(rng, "memory", whole=whole, combine="max"),
    }
    quantities = [made[name] for name in names if name in made]
    check(pareto_front(probs, names, quantities), probs, names, quantities)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("names", [["likelihood", "phone"], ["likelihood", "phone", "board"], ["phone", "memory"]])
def test_the_front_within_budgets_is_that_of_brute_force(names: list[str], seed: int) -> None:
    """With budgets on quantities of the front and on others, also two on one quantity."""
    rng = np.random.default_rng(seed)
    probs = probabilities(rng)
    phone = quantity(rng, "phone", whole=False, limit=0.7)
    budgets = [
        phone,
        Constraint("phone", 0.9 * phone.limit, phone.costs),
        quantity(rng, "size", whole=False, limit=0.6),
        quantity(rng, "memory", whole=True, combine="max", limit=0.8),
    ]
    free = [quantity(rng, "board", whole=False)]
    found = pareto_front(probs, names, [*budgets, *free, Constraint("phone", math.inf, phone.costs)])
    check(found, probs, names, [*budgets, *free])
    best = likeliest_satisfying(probs, budgets)[0]
    if "likelihood" in names:
        assert best in [network.choices for network in found]


def test_budgets_that_nothing_is_within_are_explained() -> None:
    rng = np.random.default_rng(0)
    probs = probabilities(rng)
    phone, size = quantity(rng, "phone", whole=False), quantity(rng, "size", whole=False, combine="max")
    with pytest.raises(InputError, match=r"phone <= 0.2 ms, and the smallest value of any network is"):
        pareto_front(probs, ["likelihood", "phone"], [Constraint("phone", 0.2, phone.costs)])
    with pytest.raises(InputError, match="smallest value of any network is"):
        pareto_front(probs, ["likelihood", "phone"], [phone, Constraint("size", 0.1, size.costs, "max")])


def test_a_front_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_PARTIAL", (2, 2))
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="the front of phone, likelihood is too large, with more than 2 partial"):
        pareto_front(probabilities(rng), ["likelihood", "phone"], [quantity(rng, "phone", whole=False)])


def test_chosen_networks_are_spread_over_the_front() -> None:
    line = [FrontNetwork({}, {"likelihood": float(i), "phone": float(i * i)}) for i in range(101)]
    assert spread(line, 200) == list(range(101))
    assert spread(line, 5) == [0, 25, 50, 75, 100]
    assert spread(line, 2) == [0, 100]
    assert len(spread(line, 1)) == 1


def test_the_papers_space_has_a_front_in_three_quantities() -> None:
    rng = np.random.default_rng(0)
    names = {f"layer{i}": tuple(map(str, range(7))) for i in range(21)}
    probs = {label: torch.tensor(rng.dirichlet(np.full(7, 0.5)) + 1e-12) for label in names}
    made = []
    for name in ("phone", "board"):
        values = rng.gamma(2.0, 1.0, (21, 7))
        made.append(
            Constraint(name, math.inf, SpaceCosts(0.0, names, dict(zip(names, map(tuple, values), strict=True))))
        )
    found = pareto_front(probs, ["likelihood", "phone", "board"], made)
    assert len(found) > 1000
    # Each network of the front is the most likely one within its own latencies.
    for network in found[:: len(found) // 8]:
        limits = [Constraint(q.name, network.values[q.name], q.costs) for q in made]
        assert likeliest_satisfying(probs, limits)[0] == network.choices
