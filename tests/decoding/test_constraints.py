"""Decoding within several constraints, against enumeration of all architectures and against integer programming."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from nni_proxyless.decoding import constraints as module
from nni_proxyless.decoding.constraint import Constraint, Problem
from nni_proxyless.decoding.constraints import likeliest_satisfying
from nni_proxyless.decoding.integer_program import likeliest_by_milp
from nni_proxyless.decoding.knapsack import likeliest_within
from nni_proxyless.errors import InputError
from nni_proxyless.latency.costs import SpaceCosts

LAYERS, CANDIDATES = 5, 4
NAMES = {f"layer{i}": tuple(f"c{j}" for j in range(CANDIDATES)) for i in range(LAYERS)}


def space(seed: int, sums: int, maxima: int = 0) -> tuple[dict[str, Tensor], list[Constraint]]:
    """Random probabilities, and constraints that about half of the architectures satisfy."""
    rng = np.random.default_rng(seed)
    probs = {label: torch.tensor(rng.dirichlet(np.full(CANDIDATES, 0.7))) for label in NAMES}
    probs["layer2"][1] = 0.0  # pruned
    made = []
    for number in range(sums + maxima):
        values = rng.gamma(2.0, 1.0, (LAYERS, CANDIDATES))
        values[:, 0] = 0.0
        costs = SpaceCosts(0.5, NAMES, {label: tuple(row) for label, row in zip(NAMES, values.tolist(), strict=True)})
        combine = "max" if number >= sums else "sum"
        limit = 0.5 + (0.6 * values.mean() * LAYERS if combine == "sum" else float(np.quantile(values, 0.85)))
        made.append(Constraint(f"q{number}", limit, costs, combine))
    return probs, made


def all_architectures() -> list[dict[str, str]]:
    return [dict(zip(NAMES, names, strict=True)) for names in itertools.product(*NAMES.values())]


def value(constraint: Constraint, choices: dict[str, str]) -> float:
    """The quantity of an architecture, without the code under test."""
    picked = [constraint.costs.layers[label][int(name[1:])] for label, name in choices.items()]
    if constraint.combine == "sum":
        return constraint.costs.fixed + sum(picked)
    return max(constraint.costs.fixed, *picked)


def likelihood(probs: dict[str, Tensor], choices: dict[str, str]) -> float:
    values = [float(probs[label][int(name[1:])]) for label, name in choices.items()]
    return sum(map(math.log, values)) if min(values) > 0 else -math.inf


def brute_force(probs: dict[str, Tensor], limits: list[Constraint], count: int) -> list[dict[str, str]]:
    kept = [
        choices
        for choices in all_architectures()
        if likelihood(probs, choices) > -math.inf and all(value(c, choices) <= c.limit for c in limits)
    ]
    return sorted(kept, key=lambda choices: -likelihood(probs, choices))[:count]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("sums", "maxima"), [(1, 0), (2, 0), (4, 0), (2, 1), (0, 2)])
def test_the_likeliest_are_those_of_brute_force(seed: int, sums: int, maxima: int) -> None:
    probs, limits = space(seed, sums, maxima)
    expected = brute_force(probs, limits, 20)
    assert expected
    assert likeliest_satisfying(probs, limits, 20) == expected
    assert likeliest_satisfying(probs, limits) == expected[:1]


@pytest.mark.parametrize("seed", range(3))
def test_integer_programming_and_the_dynamic_programme_agree(seed: int) -> None:
    probs, limits = space(seed, 3)
    problem = Problem.of(probs, limits)
    assert problem is not None
    assert likeliest_by_milp(problem, 6) == likeliest_satisfying(probs, limits, 6)
    alone = limits[0]
    assert likeliest_satisfying(probs, [alone], 30) == likeliest_within(probs, alone.costs, alone.limit, 30)


def test_all_are_found_if_there_are_fewer_than_wanted() -> None:
    probs, limits = space(3, 2)
    expected = brute_force(probs, limits, 10**6)
    assert 10 < len(expected) < 4**5
    assert likeliest_satisfying(probs, limits, 10**5) == expected


def test_narrow_passes_are_repeated_until_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, limits = space(1, 3)
    expected = brute_force(probs, limits, 8)
    widths = []
    once = module._Pass

    def recorded(*arguments: object) -> object:
        widths.append(arguments[3])
        return once(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_Pass", recorded)
    monkeypatch.setattr(module, "_FIRST_WIDTH", 1)
    assert likeliest_satisfying(probs, limits, 8) == expected
    assert widths[:2] == [1, 8]
    monkeypatch.setattr(module, "_LARGEST_WIDTH", 1)  # then integer programming takes over
    assert likeliest_satisfying(probs, limits, 8) == expected


def awkward(kind: str, seed: int) -> tuple[dict[str, Tensor], list[Constraint]]:
    """Problems with many equal values, hardly any solution, or limits of very different magnitude."""
    rng = np.random.default_rng(seed)
    alpha = 0.7 if "probabilities" not in kind else 1e9
    probs = {label: torch.tensor(rng.dirichlet(np.full(CANDIDATES, alpha))) for label in NAMES}
    if "probabilities" in kind:
        probs = {label: torch.full((CANDIDATES,), 1 / CANDIDATES, dtype=torch.float64) for label in NAMES}
    values = rng.gamma(2.0, 1.0, (4, LAYERS, CANDIDATES))
    if "costs" in kind:
        values = (values > 1.5).astype(float)
    means = values.sum(axis=1).mean(axis=1) if "costs" in kind else np.full(4, values.mean() * LAYERS)
    part = {"few": 0.75, "magnitudes": 0.8}.get(kind, 0.9)
    scales = (1e-6, 1.0, 1e3, 1e9) if kind == "magnitudes" else (1.0,) * 4
    limits = []
    for number, (own, mean, scale) in enumerate(zip(values, means, scales, strict=True)):
        rows = {label: tuple(row) for label, row in zip(NAMES, (own * scale).tolist(), strict=True)}
        limits.append(Constraint(f"q{number}", float(part * mean * scale), SpaceCosts(0.0, NAMES, rows)))
    return probs, limits


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "kind", ["equal costs", "equal probabilities", "equal costs and probabilities", "few", "magnitudes"]
)
@pytest.mark.parametrize("width", [1, 40])
def test_awkward_problems_against_brute_force(
    kind: str, seed: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    probs, limits = awkward(kind, seed)
    monkeypatch.setattr(module, "_FIRST_WIDTH", width)
    for count in (1, 12):
        expected = brute_force(probs, limits, count)
        if expected:
            assert likeliest_satisfying(probs, limits, count) == expected
        else:
            with pytest.raises(InputError, match="no network of this space"):
                likeliest_satisfying(probs, limits, count)


def large(kind: str) -> tuple[dict[str, Tensor], list[Constraint]]:
    """The paper's space with four constraints: a problem that many partial architectures fit."""
    rng = np.random.default_rng(0)
    names = {f"layer{i}": tuple(map(str, range(7))) for i in range(21)}
    probs = {label: torch.tensor(rng.dirichlet(np.full(7, 0.5)) + 1e-12) for label in names}
    values = rng.gamma(2.0, 1.0, (4, 21, 7))
    scales = (1e-6, 1.0, 1e3, 1e9) if kind == "few solutions" else (1.0,) * 4
    part = 0.65 if kind == "few solutions" else 0.6
    if kind == "equal costs":
        values = (values > values.mean()) * 1.0
    if kind == "equal probabilities":
        probs = {label: torch.full((7,), 1 / 7, dtype=torch.float64) for label in names}
        values[:, :, -1] = 0.0
    limits = [
        Constraint(
            f"q{k}", float(part * v.mean() * 21 * s),
            SpaceCosts(0.0, names, {n: tuple((r * s).tolist()) for n, r in zip(names, v, strict=True)}),
        )
        for k, (v, s) in enumerate(zip(values, scales, strict=True))
    ]  # fmt: skip
    return probs, limits


@pytest.mark.parametrize(("kind", "count"), [("few solutions", 11), ("equal costs", 64), ("equal probabilities", 64)])
def test_few_solutions_and_equal_values_do_not_widen_the_search(
    kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without surrogates, or the order of equals, each of these keeps millions of partial architectures."""
    probs, limits = large(kind)
    monkeypatch.setattr(module, "_LARGEST_WIDTH", 2**15)
    monkeypatch.setattr(module, "likeliest_by_milp", lambda *_: pytest.fail("the search was too wide"))
    found = likeliest_satisfying(probs, limits, 64)
    assert len(found) == count
    assert all(c.of(choices) <= c.limit * (1 + 1e-9) for choices in found for c in limits)
    problem = Problem.of(probs, limits)
    assert problem is not None
    best = sum(math.log(float(probs[k][int(v)])) for k, v in likeliest_by_milp(problem, 1)[0].items())
    scores = [sum(math.log(float(probs[k][int(v)])) for k, v in choices.items()) for choices in found]
    assert scores[0] == pytest.approx(best, rel=1e-9)
    assert scores == sorted(scores, reverse=True) or kind == "equal probabilities"


def test_limits_that_are_met_exactly_hold() -> None:
    probs, limits = space(5, 2)
    best = brute_force(probs, limits, 1)[0]
    exact = [Constraint(c.name, value(c, best), c.costs) for c in limits]
    assert likeliest_satisfying(probs, exact)[0] == brute_force(probs, exact, 1)[0]


def test_the_paper_s_space_with_four_constraints_and_64_finalists() -> None:
    rng = np.random.default_rng(0)
    names = {f"layer{i}": tuple(map(str, range(7))) for i in range(21)}
    probs = {label: torch.tensor(rng.dirichlet(np.full(7, 0.5)) + 1e-12) for label in names}
    values = rng.gamma(2.0, 1.0, (4, 21, 7))
    limits = [
        Constraint(f"q{k}", 0.7 * v.mean() * 21, SpaceCosts(0.0, names, dict(zip(names, map(tuple, v), strict=True))))
        for k, v in enumerate(values)
    ]
    found = likeliest_satisfying(probs, limits, 64)
    assert len({tuple(choices.values()) for choices in found}) == 64
    assert all(c.of(choices) <= c.limit for choices in found for c in limits)
    problem = Problem.of(probs, limits)
    assert problem is not None
    assert found[:1] == likeliest_by_milp(problem, 1)


def test_a_conflict_names_the_constraints_and_the_nearest_values() -> None:
    names = {"a": ("small", "large"), "b": ("small", "large")}
    probs = {label: torch.tensor([0.5, 0.5]) for label in names}
    fast = SpaceCosts(1.0, names, {"a": (5.0, 1.0), "b": (6.0, 2.0)})  # large operators are faster here
    size = SpaceCosts(10.0, names, {"a": (1.0, 30.0), "b": (2.0, 50.0)}, "params")
    free = SpaceCosts(0.0, names, {"a": (1.0, 1.0), "b": (1.0, 1.0)}, "flops")
    limits = [
        Constraint("phone", 5.0, fast),
        Constraint("parameters", 40.0, size),
        Constraint("multiply_adds", 9, free),
    ]
    with pytest.raises(InputError, match="together") as refused:
        likeliest_satisfying(probs, limits)
    # Within 40 parameters both are small, which takes 1 + 5 + 6 ms. Within 5 ms both are large.
    told = str(refused.value)
    assert "phone <= 5 ms and parameters <= 40 together" in told
    assert "phone of at least 12 ms" in told
    assert "parameters of at least 90" in told
    assert "multiply_adds" not in told
    with pytest.raises(InputError, match=r"parameters <= 12, and the smallest value of any network is 13"):
        likeliest_satisfying(probs, [Constraint("parameters", 12.0, size), limits[2]])
    with pytest.raises(InputError, match=r"memory <= 0, and the smallest value of any network is 1"):
        likeliest_satisfying(probs, [Constraint("memory", 0.0, free, "max"), limits[2]])


@pytest.mark.parametrize("widest", [1, 10**9])
def test_a_conflict_that_only_mixtures_hide_is_named(widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of each candidate of `a` would be within both limits, and no network is: found after the first layer."""
    monkeypatch.setattr(module, "_LARGEST_WIDTH", widest)  # 1: by the integer programme
    names = {"a": ("x", "y"), "b": ("x", "y"), "c": ("x", "y")}
    probs = {label: torch.tensor([0.5, 0.5]) for label in names}
    phone = SpaceCosts(0.0, names, {"a": (0.0, 10.0), "b": (0.0, 1.0), "c": (0.0, 1.0)})
    board = SpaceCosts(0.0, names, {"a": (10.0, 0.0), "b": (0.0, 1.0), "c": (0.0, 1.0)})
    with pytest.raises(InputError, match="phone of at least 10 ms if the rest holds, or board of at least 10 ms if"):
        likeliest_satisfying(probs, [Constraint("phone", 5.0, phone), Constraint("board", 5.0, board)])


def test_a_maximum_that_is_met_excludes_candidates() -> None:
    names = {"a": ("small", "large"), "b": ("small", "large")}
    probs = {label: torch.tensor([0.1, 0.9]) for label in names}
    memory = SpaceCosts(3.0, names, {"a": (1.0, 8.0), "b": (2.0, 4.0)}, "bytes")
    assert likeliest_satisfying(probs, [Constraint("peak_memory", 4.0, memory, "max")]) == [
        {"a": "small", "b": "large"}
    ]
    with pytest.raises(InputError, match="the smallest value of any network is 3 bytes"):
        likeliest_satisfying(probs, [Constraint("peak_memory", 2.5, memory, "max")])
    assert Constraint("peak_memory", 9.0, memory, "max").of({"a": "large", "b": "small"}) == 8.0
