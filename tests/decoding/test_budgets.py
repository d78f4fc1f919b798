"""Budgets as users state them, and the quantities of a space, against sums by hand."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from nni_proxyless.decoding.budgets import (
    QUANTITIES,
    Limit,
    constraints_of,
    parse_budgets,
    parse_expressions,
    parse_limit,
    quantity_costs,
)
from nni_proxyless.errors import InputError
from nni_proxyless.latency.costs import SpaceCosts
from nni_proxyless.network.footprint import network_file_bytes, network_peak_bytes
from nni_proxyless.network.operators import total_multiply_adds, total_parameters
from nni_proxyless.network.space_spec import SpaceSpec


@pytest.mark.parametrize(
    ("name", "limit", "value"),
    [
        ("phone", 40, 40.0),
        ("phone", "40 ms", 40.0),
        ("phone", "0.04s", 40.0),
        ("phone", "500us", 0.5),
        ("parameters", 250000, 250000.0),
        ("parameters", "250k", 250000.0),
        ("multiply_adds", "1.5M", 1.5e6),
        ("peak_memory", "256KiB", 262144.0),
        ("file_size", "1MB", 1e6),
        ("file_size_int8", "2 mib", 2097152.0),
        ("peak_memory_int8", 3e5, 300000.0),
    ],
)
def test_limits_have_units(name: str, limit: Any, value: float) -> None:
    assert parse_limit(name, limit) == Limit(name, pytest.approx(value))


def test_a_percentage_is_a_part_of_the_largest_network() -> None:
    assert parse_limit("parameters", "60%") == Limit("parameters", fraction=0.6)
    assert parse_limit("phone", "12.5 %").resolve(80.0) == 10.0


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("phone", 0), ("phone", -1), ("phone", "x"), ("phone", True), ("phone", None), ("phone", "40 MB"),
        ("parameters", "3 ms"), ("peak_memory", "1 ms"), ("phone", "0%"), ("phone", "101%"), ("phone", [40]),
        ("phone", float("nan")), ("phone", float("inf")), ("phone", ""), ("phone", "1e400"),
    ],
)  # fmt: skip
def test_other_limits_are_refused_in_one_line(name: str, limit: Any) -> None:
    with pytest.raises(InputError, match=name) as refused:
        parse_limit(name, limit)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(
    ("name", "limit", "units", "example"),
    [
        ("parameters", "4 Mio", "k, M, G", "250000 or 1.5M"),
        ("parameters", "four", "k, M, G", "250000 or 1.5M"),
        ("peak_memory", "1 ms", "B, kB, MB, GB, KiB, MiB, GiB", "256KiB, 1MB or 300000"),
        ("phone", "40 MB", "ms, s, us", "40 or '40 ms'"),
    ],
)
def test_a_text_that_is_not_understood_is_told_with_the_units(name: str, limit: str, units: str, example: str) -> None:
    with pytest.raises(InputError) as refused:
        parse_limit(name, limit)
    assert str(refused.value) == (
        f"budget of '{name}': the text '{limit}' is not understood; write a number, with one of the units {units} or "
        f"without a unit, such as {example}, or a percentage such as 60%"
    )


@pytest.mark.parametrize("limit", ["0", "-4M", -4, "0 k"])
def test_a_limit_must_be_above_0(limit: Any) -> None:
    with pytest.raises(InputError, match="the limit must be above 0"):
        parse_limit("parameters", limit)


def test_expressions_and_mappings_say_the_same() -> None:
    told = parse_expressions(["phone<=40", "parameters <= 250k", "peak_memory<= 256 KiB"])
    assert told == parse_budgets({"phone": 40, "parameters": 250000, "peak_memory": "256KiB"})
    for wrong in ("phone=40", "<=40", "phone<=", "phone"):
        with pytest.raises(InputError, match="NAME<=LIMIT"):
            parse_expressions([wrong])
    for content in ([1], {1: 2}, "phone", {"": 3}):
        with pytest.raises(InputError, match="must map"):
            parse_budgets(content)


def test_quantities_of_a_network_are_the_sums_of_its_candidates(tiny_spec: SpaceSpec) -> None:
    choices = {layer.label: layer.names[-1] for layer in tiny_spec.layers}
    choices[tiny_spec.layers[0].label] = "k5_e2"
    operators = tiny_spec.operators(choices)
    expected = {
        "parameters": total_parameters(operators),
        "multiply_adds": total_multiply_adds(operators),
        "file_size": network_file_bytes(operators),
        "file_size_int8": network_file_bytes(operators, "int8"),
        "peak_memory": network_peak_bytes(operators),
        "peak_memory_int8": network_peak_bytes(operators, "int8"),
    }
    made = constraints_of([Limit(name, fraction=1.0) for name in QUANTITIES], {}, tiny_spec)
    assert {constraint.name: constraint.of(choices) for constraint in made} == expected
    assert [constraint.limit for constraint in made] == [constraint.largest for constraint in made]


def test_names_are_checked(tiny_spec: SpaceSpec) -> None:
    costs = quantity_costs("parameters", tiny_spec)
    latency = SpaceCosts(1.0, costs.candidates, costs.layers)
    assert constraints_of([Limit("phone", 3.0)], {"phone": latency}, tiny_spec)[0].costs is latency
    with pytest.raises(InputError, match=r"phone.*parameters"):
        constraints_of([Limit("fone", 3.0)], {"phone": latency}, tiny_spec)
    with pytest.raises(InputError, match="the name of a quantity"):
        constraints_of([Limit("parameters", 3.0)], {"parameters": latency}, tiny_spec)
    with pytest.raises(InputError, match="does not describe its operators"):
        constraints_of([Limit("parameters", 3.0)], {"phone": latency}, None)


def test_budgets_of_a_recipe_are_checked_without_torch() -> None:
    code = (
        "import sys\n"
        "from nni_proxyless.search.recipe import Recipe\n"
        "Recipe.from_dict({'budgets': {'cpu_torch': 4, 'peak_memory': '64KiB'}})\n"
        "for wrong in ({'phone': 4}, {'parameters': 'x'}):\n"
        "    try:\n"
        "        Recipe.from_dict({'budgets': wrong})\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["RecipeError", "RecipeError", "False"]
