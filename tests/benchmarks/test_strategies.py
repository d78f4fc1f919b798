"""Strategies and supernets that only the benchmarks use."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cost.supernets import gates_by_label
from benchmarks.results_csv import read_rows
from benchmarks.search_quality import all_budgets
from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.decoding.checkpoint import SearchCheckpoint
from nni_proxyless.latency import LatencyTable
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.strategies.latency_aware import LatencyAwareStrategy


def searched(recipe_file: Path, **settings: Any) -> Path:
    """Results of a short search."""
    output = recipe_file.parent / "out"
    run_search(prepare(Recipe.load(recipe_file, {"epochs": 2, "warmup_epochs": 0, **settings})), output)
    return output


@pytest.mark.parametrize("name", all_budgets.STRATEGIES)
def test_recipes_find_the_strategies_for_all_budgets(name: str) -> None:
    settings = all_budgets.settings(name, [("table.yml", 1.0)])
    module, kind = settings["strategy"].split(":")
    assert issubclass(getattr(import_module(module), kind), LatencyAwareStrategy)
    assert settings["strategy_args"] == {"budgets": [("table.yml", 1.0)]}


def test_all_budgets_refuses_latency_in_the_loss() -> None:
    with pytest.raises(ValueError, match="each budget needs a search of its own"):
        all_budgets.DARTS(budgets=[], finalists=2, latency_weight=0.1)


def test_the_best_finalist_has_the_highest_rank() -> None:
    rows = [
        {"architecture": name, "accuracy": accuracy, "log_likelihood": "0", "multiply_adds": "10", "activations": "5"}
        for name, accuracy in (("a b", "0.4"), ("a c", "0.6"), ("d b", "0.3"))
    ]
    assert all_budgets.best(rows) == "a c"


def test_rank_given_compares_the_given_networks(recipe_file: Path) -> None:
    networks = ["k3_e1 skip k5_e2", "k5_e2 k3_e1 k3_e1", "k3_e2 k5_e1 k5_e1"]
    output = searched(
        recipe_file,
        strategy="benchmarks.search_quality.rank_given:RankGiven",
        strategy_args={"networks": networks},
        budget_fraction=1.0,
    )
    assert [row["architecture"] for row in read_rows(output / "finalists.csv")] == networks


def test_one_search_compares_the_finalists_of_each_budget(recipe_file: Path) -> None:
    path = recipe_file.parent / "table.yml"
    table = LatencyTable.load(path)
    budgets = [(str(path), fraction * float(table.costs(spec_of(recipe_file)).largest)) for fraction in (0.8, 1.0)]
    output = searched(
        recipe_file,
        **all_budgets.settings("darts", budgets),
        finalists=5,
        latency_weight=0.0,
        budget_fraction=1.0,
    )
    compared = {row["architecture"] for row in read_rows(output / "finalists.csv")}
    of_each = [all_budgets.finalists(output, budget, 5) for budget in budgets]
    assert all(len(rows) == 5 for rows in of_each)
    assert compared == {row["architecture"] for rows in of_each for row in rows}
    for (_, budget_ms), rows in zip(budgets, of_each, strict=True):
        assert all(float(row["latency_ms"]) <= budget_ms for row in rows)
        likelihoods = [float(row["log_likelihood"]) for row in rows]
        assert likelihoods == sorted(likelihoods, reverse=True)
    assert all_budgets.seconds(output, 5) > 0
    assert SearchCheckpoint.load(output).spec == spec_of(recipe_file)


def spec_of(recipe_file: Path) -> Any:
    return prepare(Recipe.load(recipe_file, {})).spec


def test_gates_are_found_by_label() -> None:
    supernet = ProxylessNAS().mutate_model(MobileNetV2Space.from_yaml("mobilenetv2_digits"))
    gates = gates_by_label(supernet)
    assert list(gates) == sorted(layer.label for layer in supernet.spec.layers)
    assert all(gate.label == label for label, gate in gates.items())
    assert [gate.num_candidates for gate in gates.values()] == [
        len(layer.names) for layer in sorted(supernet.spec.layers, key=lambda layer: layer.label)
    ]
