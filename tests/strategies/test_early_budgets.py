"""Budgets that no network can keep are refused when the strategy is made, as far as the tables show it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from nni_proxyless.baselines import LatencyDARTS

from nni_proxyless import LatencyTable, ProxylessNAS
from nni_proxyless.errors import InputError
from nni_proxyless.latency import Calibration, make_backend, measure_table
from nni_proxyless.latency.composition import Composition, Part
from nni_proxyless.latency.fastest import least_ms
from nni_proxyless.network.operators import Operator
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.values import budget_text
from tests import toy

NAMES = ("small", "large")


def table_of_two_layers() -> LatencyTable:
    """Table whose networks take 2 to 9 ms, and have 200 to 900 parameters less what they take in milliseconds."""
    joint = Part(("a", "b"), ((0,), (1,), (0, 1), (0, 1, 1)), (900.0, 500.0, 300.0, 200.0), (0.0,) * 4)
    composition = Composition({"a": NAMES, "b": NAMES}, (joint,))
    operators = toy.table().operators
    first, second = itertools.islice(operators, 2)
    entries = {first: replace(operators[first], cost=2.0), second: replace(operators[second], cost=3.5)}
    return replace(toy.table(), operators=entries, composition=composition, calibration=Calibration())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget_ms": 1.9}, "no network of this space takes 1.9 ms or less; the fastest takes 2 ms, the slowest 9 ms"),
        ({"budget_fraction": 0.2}, r"takes 1.8 ms or less; the fastest takes 2 ms"),
        ({"budgets": {"latency": 1.9}}, "the fastest takes 2 ms"),
        ({"budgets": {"parameters": 100}}, "parameters <= 100, and the smallest value of any network is 200"),
        (
            {"budget_ms": 3, "budgets": {"parameters": 400}},
            "latency <= 3 ms and parameters <= 400 together; possible: latency of at least 5.5 ms .* parameters of at "
            "least 900",
        ),
    ],
)
def test_a_table_that_names_its_layers_refuses_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProxylessNAS(latency=table_of_two_layers(), **arguments)


def test_possible_budgets_are_accepted() -> None:
    ProxylessNAS(latency=table_of_two_layers(), budget_ms=2)
    ProxylessNAS(latency=table_of_two_layers(), budget_ms=5.5, budgets={"parameters": 300, "multiply_adds": 1})
    ProxylessNAS(latency=table_of_two_layers(), budget_ms=1, objective="add_linear")  # only a reference
    ProxylessNAS(latency=table_of_two_layers(), budgets={"peak_memory": 1})  # only the space can tell


def test_fitted_tables_refuse_at_once() -> None:
    least = toy.FIXED_MS + sum(min(costs.values()) for costs in toy.COSTS.values())
    ProxylessNAS(latency=toy.table(), budget_ms=least * 1.001)
    for strategy in (ProxylessNAS, LatencyDARTS):
        with pytest.raises(InputError, match=rf"takes 1 ms or less; the fastest takes {budget_text(least)}"):
            strategy(latency=toy.table(), budget_ms=1.0)


def by_operators(name: str) -> tuple[SpaceSpec, LatencyTable]:
    spec = SpaceSpec.from_yaml(name)
    table = measure_table(spec, make_backend("flops"))
    return spec, replace(table, unit="ms", calibration=Calibration(scale=1e-6, offset_ms=0.5))


@pytest.mark.parametrize(("name", "skips"), [("mobilenetv2_imagenet", True), ("mobilenetv2_digits", False)])
def test_tables_of_operators_refuse_what_no_chain_of_operators_can_keep(name: str, skips: bool) -> None:
    spec, table = by_operators(name)
    least, smallest = least_ms(table), table.costs(spec).smallest
    assert least is not None
    assert least == pytest.approx(smallest) if skips else least < smallest
    with pytest.raises(InputError, match=rf"the fastest takes at least {budget_text(least)} according to the table of"):
        ProxylessNAS(latency=table, budget_ms=0.99 * least)
    with pytest.raises(InputError, match="according to the table of 'board'"):
        ProxylessNAS(latency={"phone": table, "board": table}, budgets={"phone": 1e3, "board": 0.99 * least})
    ProxylessNAS(latency=table, budget_ms=1.001 * least)


def test_the_bound_is_the_cheapest_of_all_chains() -> None:
    _, table = by_operators("mobilenetv2_digits")
    costs = {op: of.cost for op, of in table.operators.items() if isinstance(op, Operator)}

    def cheapest_from(shape: tuple[int, ...], length: int) -> float:
        found = [float("inf")]
        for op, cost in costs.items():
            if op.input_shape == shape and length:
                found.append(cost + (0.0 if op.kind == "classifier" else cheapest_from(op.output_shape, length - 1)))
        return min(found)

    (image,) = {op.input_shape for op in costs if op.input_shape[0] == 1}
    assert least_ms(table) == pytest.approx(0.5 + 1e-6 * cheapest_from(image, 6))
