"""Messages about budgets that conflict: every network of a small space is enumerated to check what they say."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from torch import Tensor

from nni_proxyless.decoding.budgets import constraints_of, parse_budgets
from nni_proxyless.decoding.conflicts import explain_conflict
from nni_proxyless.decoding.constraint import Constraint
from nni_proxyless.decoding.constraints import likeliest_satisfying
from nni_proxyless.errors import InputError
from nni_proxyless.latency.costs import SpaceCosts
from nni_proxyless.network.space_spec import SpaceSpec

LAYERS, CANDIDATES = 4, 4
NAMES = {f"layer{i}": tuple(f"c{j}" for j in range(CANDIDATES)) for i in range(LAYERS)}
UNITS = {"phone": "ms", "board": "ms", "parameters": "params", "file_size": "bytes", "peak_memory": "bytes"}
NUMBER = r"([\d.]+)(?: ms| bytes)?(?: \([\d.]+ %\))?"


def random_case(seed: int) -> tuple[dict[str, Tensor], list[Constraint], list[dict[str, float]]]:
    """Three to five constraints, many of which are tight, and the quantities of all networks."""
    rng = np.random.default_rng(seed)
    probs = {label: torch.tensor(rng.dirichlet(np.full(CANDIDATES, 1.0))) for label in NAMES}
    probs["layer1"][2] = 0.0  # pruned
    networks = [picks for picks in itertools.product(range(CANDIDATES), repeat=LAYERS) if picks[1] != 2]
    values: list[dict[str, float]] = [{} for _ in networks]
    made = []
    for name in rng.permutation(list(UNITS))[: rng.integers(3, 6)].tolist():
        table = rng.gamma(1.5, 1.0, (LAYERS, CANDIDATES))
        if UNITS[name] != "ms":
            table = np.round(1000 * table)
        combine = "max" if name == "peak_memory" else "sum"
        fixed = float(np.round(table.mean(), 2 if UNITS[name] == "ms" else 0))
        costs = SpaceCosts(
            fixed, NAMES, {k: tuple(row) for k, row in zip(NAMES, table.tolist(), strict=True)}, UNITS[name]
        )
        for of, picks in zip(values, networks, strict=True):
            chosen = [table[layer, pick] for layer, pick in enumerate(picks)]
            of[name] = max(fixed, *chosen) if combine == "max" else fixed + sum(chosen)
        low, high = (f(of[name] for of in values) for f in (min, max))
        position = rng.uniform(-0.05, 0.35)
        fraction = None
        limit = max(low + position * (high - low), 1e-3)
        if rng.random() < 0.4:
            largest = Constraint(name, 1.0, costs, combine).largest  # type: ignore[arg-type]
            fraction = round(limit / largest, 3)
            limit = fraction * largest
        made.append(Constraint(name, limit, costs, combine, fraction))  # type: ignore[arg-type]
    return probs, made, values


def within(values: dict[str, float], limits: dict[str, float]) -> bool:
    return all(values[name] <= limit * (1 + 1e-9) for name, limit in limits.items())


def check_message(told: str, limits: dict[str, float], networks: list[dict[str, float]]) -> set[str]:
    """Check each statement of a message; return the kinds of statements."""
    assert "\n" not in told
    kinds = set()
    alone = {
        name: float(v)
        for name, v in re.findall(rf"(\w+) <= [^,;]+, and the smallest value of any network is {NUMBER}", told)
    }
    for name, value in alone.items():
        kinds.add("alone")
        least = min(of[name] for of in networks)
        assert least > limits[name]
        assert least <= value * (1 + 1e-12) <= least * 1.001 + 1
    if not alone:
        kinds.add("together")
        conflict = re.findall(r"(\w+) <= ", told)
        assert len(conflict) >= 2
        named = {name: limits[name] for name in conflict}
        assert not any(within(of, named) for of in networks)
        for name in conflict:
            assert any(within(of, {k: v for k, v in named.items() if k != name}) for of in networks)
        possible = re.findall(rf"(\w+) of at least {NUMBER} if the rest holds", told)
        for name, text in possible:
            kinds.add("possible")
            rest = {k: v for k, v in limits.items() if k != name}
            least = min(of[name] for of in networks if within(of, rest))
            assert any(within(of, {**rest, name: float(text)}) for of in networks)
            assert float(text) <= least * 1.001 + 1
        for name in set(conflict) - {name for name, _ in possible}:  # changing it alone does not suffice
            assert not any(within(of, {k: v for k, v in limits.items() if k != name}) for of in networks)
    nearest = re.search(r"the network nearest to all budgets has (.*)$", told)
    if nearest:
        kinds.add("nearest")
        stated = {name: float(value) for name, value in re.findall(rf"(\w+) {NUMBER}(?:, |$)", nearest[1])}
        assert set(stated) == set(limits)
        # It is a network, and no other one has a smaller largest excess.
        close = [
            of for of in networks if all(of[k] <= v * (1 + 1e-12) and v <= of[k] * 1.001 + 1 for k, v in stated.items())
        ]
        assert close

        def excess(of: dict[str, float]) -> float:
            return max(0.0, *(of[name] / limit - 1 for name, limit in limits.items()))

        assert min(map(excess, close)) == pytest.approx(min(map(excess, networks)), abs=1e-5)
        if alone:  # and the smallest values are not possible together with the rest
            assert not any(within(of, {**limits, **{k: v * (1 + 1e-9) for k, v in alone.items()}}) for of in networks)
    return kinds


def test_every_statement_is_true() -> None:
    kinds: set[str] = set()
    told = 0
    for seed in range(60):
        probs, constraints, networks = random_case(seed)
        limits = {c.name: c.limit for c in constraints}
        if any(within(of, limits) for of in networks):
            assert likeliest_satisfying(probs, constraints)
            continue
        with pytest.raises(InputError) as refused:
            likeliest_satisfying(probs, constraints)
        told += 1
        kinds |= check_message(str(refused.value), limits, networks)
    assert told >= 20
    assert kinds == {"alone", "together", "possible", "nearest"}


def test_two_conflicts_at_once_name_the_nearest_network() -> None:
    """`a` against `b` and `c` against `d`: no single limit can be changed so that all hold."""
    names = {"x": ("small", "large"), "y": ("small", "large")}
    probs = {label: torch.tensor([0.5, 0.5]) for label in names}
    first = {"a": (1.0, 9.0), "b": (9.0, 1.0), "c": (0.0, 0.0), "d": (0.0, 0.0)}
    second = {"a": (0.0, 0.0), "b": (0.0, 0.0), "c": (1.0, 9.0), "d": (9.0, 1.0)}
    limits = [Constraint(k, 8.0, SpaceCosts(0.0, names, {"x": first[k], "y": second[k]})) for k in "abcd"]
    told = explain_conflict(probs, limits)
    assert "c <= 8 ms and d <= 8 ms together, and other budgets conflict, too" in told
    assert told.endswith("9 ms, d 1 ms") or told.endswith("1 ms, d 9 ms")
    assert check_message(told, dict.fromkeys("abcd", 8.0), [
        {"a": a, "b": 10 - a, "c": c, "d": 10 - c} for a in (1.0, 9.0) for c in (1.0, 9.0)
    ]) == {"together", "nearest"}  # fmt: skip


def test_parts_of_the_largest_network_are_told_as_such(tiny_spec: SpaceSpec) -> None:
    """What the message says is possible is accepted when it is entered, as a value and as a percentage."""
    probs = {layer.label: torch.full((len(layer.names),), 1.0 / len(layer.names)) for layer in tiny_spec.layers}
    generator = np.random.default_rng(0)
    size = constraints_of(parse_budgets({"parameters": "100%"}), {}, tiny_spec)[0].costs
    latencies = {
        target: SpaceCosts(0.2, size.candidates, {
            label: tuple(
                float(generator.uniform(0.5, 1.0) * (1 if target == "phone" else max(of) / (value + 1))) for value in of
            )
            for label, of in size.layers.items()
        })
        for target in ("phone", "board")
    }  # fmt: skip
    for stated, told in (
        ({"parameters": "45%", "phone": "80%", "board": "12%", "peak_memory": "100%"}, r"parameters <= \d+ \(45 %\)"),
        ({"parameters": "70%", "phone": "90%", "board": "0.5%", "file_size": "100%"}, r"board <= [\d.]+ ms \(0.5 %\)"),
    ):
        with pytest.raises(InputError, match=told) as refused:
            likeliest_satisfying(probs, constraints_of(parse_budgets(stated), latencies, tiny_spec))
        message = str(refused.value)
        offers = re.findall(r"(\w+) of at least ([\d.]+ ?(?:ms|bytes)?) \(([\d.]+ %)\) if the rest holds", message)
        alone = re.findall(r"(board) <= .* smallest value of any network is ([\d.]+ ms) \(([\d.]+ %)\)", message)
        assert offers or alone
        for name, value, percent in (*offers, *alone):
            for text in (value.strip(), percent):
                changed = {**stated, name: text} if offers else {name: text}
                assert likeliest_satisfying(probs, constraints_of(parse_budgets(changed), latencies, tiny_spec))
