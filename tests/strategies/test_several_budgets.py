"""Searches with several budgets, in spaces whose networks are known by enumeration."""

from __future__ import annotations

import csv
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError
from nni_proxyless.latency import Calibration, LatencyTable
from nni_proxyless.latency.entries import Choice
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search
from nni_proxyless.strategies.nni_strategies import RandomSearch
from nni_proxyless.strategies.reinforce import reward
from nni_proxyless.supernet.space import MobileNetV2Space
from tests import toy
from tests.helpers import made_up_table, table_of

# On the board, the costs of the first two features are exchanged.
BOARD = {**toy.COSTS, "f0": toy.COSTS["f1"], "f1": toy.COSTS["f0"]}


def board() -> LatencyTable:
    costs = {Choice(label, name): cost for label, of in BOARD.items() for name, cost in of.items()}
    return made_up_table(costs, Calibration(1.0, toy.FIXED_MS, 8, 0.0), "tests.toy.Features")


def on_board(choices: dict[str, str]) -> float:
    return toy.FIXED_MS + sum(BOARD[label][name] for label, name in choices.items())


def search(epochs: int = 4, seed: int = 0, **settings: Any) -> ProxylessNAS:
    torch.manual_seed(seed)
    strategy = ProxylessNAS(latency={"phone": toy.table(), "board": board()}, seed=seed, **settings)
    space = RawFormatModelSpace.from_model(toy.Features(), toy.evaluator(epochs))
    strategy(space, SequentialExecutionEngine())
    return strategy


@pytest.mark.parametrize("gradient", ["two_path", "full", "reinforce"])
def test_one_network_is_within_the_budgets_of_two_devices(gradient: str) -> None:
    strategy = search(budgets={"phone": 5.0, "board": 4.5}, arch_gradient=gradient)
    found = strategy.export_architecture()
    assert toy.latency_ms(found.choices) <= 5.0
    assert on_board(dict(found.choices)) <= 4.5
    assert found.predicted_latency_ms == pytest.approx(toy.latency_ms(found.choices))
    assert found.budget_ms == 5.0
    assert found.budgets == {"board": {"limit": 4.5, "value": pytest.approx(on_board(dict(found.choices)))}}
    for finalist in strategy.compared:
        assert toy.latency_ms(finalist.choices) <= 5.0
        assert on_board(dict(finalist.choices)) <= 4.5
    columns = strategy.progress()
    assert columns["decoded_board"] == pytest.approx(on_board(dict(found.choices)))
    assert columns["weight_board"] >= 0
    # The expected values are those at the temperature of the last epoch, like the expected latency and the entropy.
    temperature = columns["temperature"]
    assert temperature == pytest.approx(0.1)
    by_hand = {"phone": toy.FIXED_MS, "board": toy.FIXED_MS}
    for label, gate in strategy._gates.items():
        probs = torch.softmax(gate.alpha.detach().double() / temperature, 0)
        for name, of in (("phone", toy.COSTS), ("board", BOARD)):
            by_hand[name] += sum(float(p) * of[label][c] for p, c in zip(probs, gate.candidates, strict=True))
    assert columns["expected_board"] == pytest.approx(by_hand["board"])
    assert strategy.expected_latency_ms() == pytest.approx(by_hand["phone"], rel=1e-5)


@pytest.mark.slow(100)
@pytest.mark.xdist_group("budget")  # it needs the accuracies of all networks, as tests in test_budget.py do
def test_the_best_network_within_two_budgets_is_found() -> None:
    alone = toy.accuracies()
    feasible = {
        picks: value
        for picks, value in alone.items()
        if toy.latency_ms(choices := dict(zip(toy.COSTS, picks, strict=True))) <= 6.2 and on_board(choices) <= 5.0
    }
    best = max(feasible, key=feasible.__getitem__)
    # Each budget alone allows a better network.
    assert max(alone.values()) > feasible[best] + 0.02
    found = [
        tuple(search(20, seed, budgets={"phone": 6.2, "board": 5.0}).export_architecture().choices.values())
        for seed in range(3)
    ]
    assert found.count(best) >= 2, (best, found)


def test_the_expected_quantities_end_at_or_below_their_limits() -> None:
    strategy = search(12, budgets={"board": 4.0}, finalists=1, target="phone")
    assert strategy.budget_ms is None  # the own target has no budget
    assert strategy.oneshot_module.latency_weight == 0.0
    assert strategy.progress()["expected_board"] <= 4.0 * 1.1
    assert on_board(strategy.export_architecture().choices) <= 4.0  # type: ignore[arg-type]


def test_a_budget_that_is_given_twice_is_refused_and_may_belong_to_another_target() -> None:
    tables = {"phone": toy.table(), "board": board()}
    with pytest.raises(InputError) as found:
        ProxylessNAS(latency=tables, budget_ms=5.0, budgets={"board": 4.5})
    assert str(found.value) == (
        "the budget of 'board' is given twice, as budget_ms=5.0 and in budgets={'board <= 4.5'}; if budget_ms=5.0 is "
        "meant for another target, name that with target="
    )
    strategy = ProxylessNAS(latency=tables, budget_ms=5.0, budgets={"board": 4.5}, target="phone")
    assert strategy.budget_ms == 5.0
    with pytest.raises(InputError, match=r"is given twice, as budget_ms=5.0 and in budgets=\{'latency <= 4'\}$"):
        ProxylessNAS(latency=toy.table(), budget_ms=5.0, budgets={"latency": 4})


def test_conflicting_budgets_are_refused_before_training(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    strategy = ProxylessNAS(latency=tiny_table, budgets={"latency": "100%", "parameters": 10})
    with pytest.raises(InputError, match=r"parameters <= 10, and the smallest value of any network is \d+"):
        strategy.apply_table(MobileNetV2Space(tiny_spec))


def test_wrong_arguments_are_refused(tiny_table: LatencyTable) -> None:
    with pytest.raises(InputError, match="given twice"):
        ProxylessNAS(latency=tiny_table, budget_ms=4, budgets={"latency": 5})
    with pytest.raises(InputError, match="objective budget"):
        ProxylessNAS(latency=tiny_table, budgets={"parameters": 5}, objective="add_linear")
    with pytest.raises(InputError, match="'phone'"):
        ProxylessNAS(latency=tiny_table, budgets={"phone": 5})
    with pytest.raises(InputError, match="LatencyTable"):
        ProxylessNAS(latency={"phone": "table.yml"}, budgets={"phone": 5})  # type: ignore[dict-item]


def test_random_search_is_within_all_budgets(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    strategy = RandomSearch(latency=tiny_table, budgets={"parameters": "60%", "multiply_adds": "70%"}, best_of=4)
    strategy.apply_table(MobileNetV2Space(tiny_spec))
    drawn = strategy.finalists()
    assert len(drawn) == 4
    for choices in drawn:
        for constraint in strategy.constraints:
            assert constraint.of(choices) <= constraint.limit


def test_the_reward_has_a_factor_for_each_budget() -> None:
    assert reward(0.5, 4.0, 2.0, 1.0, [(0.5, 2.0), (3.0, 0.0)]) == pytest.approx(0.5 * 0.5 * 0.25)
    assert reward(-0.5, 4.0, 2.0, 1.0, [(0.5, 2.0)]) == pytest.approx(-0.5 / (0.5 * 0.25))
    assert reward(0.5, None, 2.0, 1.0, [(0.5, 1.0)]) == pytest.approx(0.25)


def test_a_recipe_with_budgets_for_memory_and_parameters(recipe_file: Path) -> None:
    """Candidates above the peak memory are never trained, and the result states every budget."""
    space = yaml.safe_load((recipe_file.parent / "tiny.yml").read_text())
    space["candidates"]["expansions"] = [1, 4]
    spec = SpaceSpec.from_dict(space)
    (recipe_file.parent / "tiny.yml").write_text(yaml.safe_dump(space))
    table_of(spec).save(recipe_file.parent / "table.yml")
    # The first block needs 3 x 8 x 64 values; a first layer with expansion 4 needs 8 x 64 + 32 x 64.
    memory = 4 * 3 * 8 * 64
    settings = {
        "budgets": {"parameters": "70%", "peak_memory": memory, "device": "90%"}, "epochs": 3, "warmup_epochs": 1,
    }  # fmt: skip
    content = {**Recipe.load(recipe_file).to_dict(), "budget_fraction": None, **settings}
    recipe = replace_recipe(recipe_file, content)
    output = recipe_file.parent / "out"
    found = run_search(prepare(recipe), output)
    assert found.choices["stage1_layer1"] in ("k3_e1", "k5_e1")
    rows = csv.DictReader((output / "probabilities.csv").read_text(encoding="utf-8").splitlines())
    first = [row for row in rows if row["layer"] == "stage1_layer1"]
    pruned = {row["candidate"] for row in first if float(row["probability"]) == 0}
    assert pruned == {"k3_e4", "k5_e4"}
    largest = max(
        Architecture.of_space(spec, dict(zip(found.layer_labels, names, strict=True))).parameters
        for names in itertools.product(*(layer.names for layer in spec.layers))
    )
    assert found.budgets["parameters"] == {"limit": pytest.approx(0.7 * largest), "value": found.parameters}
    assert found.parameters <= 0.7 * largest
    assert found.budgets["peak_memory"]["value"] == memory
    loaded = Architecture.load(output / "architecture.json")
    assert replace(loaded, versions={}) == replace(found, versions={})
    history = (output / "history.csv").read_text().splitlines()[0].split(",")
    assert {"expected_parameters", "decoded_parameters", "decoded_peak_memory", "weight_parameters"} <= set(history)


def replace_recipe(path: Path, content: dict[str, Any]) -> Recipe:
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return Recipe.load(path)


def test_a_conflict_names_the_targets() -> None:
    """Both devices are named as the user named them, also the one whose latency is in the objective."""
    strategy = search(1, budgets={"phone": 5.0, "board": 4.5}, finalists=1)
    distribution = replace(strategy.distribution(), constraints=(replace(strategy.constraints[0], limit=1.5),))
    # The fastest network drops all four features, which takes 1 + 4 x 0.1 ms on either device.
    with pytest.raises(InputError, match=r"phone <= 1.2 ms, and the smallest value of any network is 1.4 ms"):
        distribution.most_likely(1.2)
