from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.errors import RecipeError
from nni_proxyless.files.resources import experiment_file
from nni_proxyless.search.recipe import Recipe
from tests.helpers import REPOSITORY


def test_every_field_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text("epochs: 3\nseed: 1\n")
    overrides = {"epochs": 7, "target": "cpu_onnxruntime", "budget_ms": 2, "latency_weight": "1e-2"}
    recipe = Recipe.load(path, overrides)
    assert (recipe.epochs, recipe.seed, recipe.target) == (7, 1, "cpu_onnxruntime")
    assert (recipe.budget_ms, recipe.latency_weight) == (2.0, 0.01)
    defaults = Recipe.from_dict({}).to_dict()
    assert set(defaults) == set(Recipe.keys())
    for key, value in defaults.items():
        assert Recipe.load(path, {key: value}).to_dict()[key] == value


def test_yaml_reads_1e_3_as_a_text_and_so_do_we() -> None:
    assert yaml.safe_load("1e-3") == "1e-3"
    assert Recipe.from_dict({"arch_learning_rate": "1e-3"}).arch_learning_rate == 0.001


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, r"unknown key 'epoch'; did you mean 'epochs'\?"),
        ({"xyz": 3}, r"unknown key 'xyz' \(allowed: accelerator, .*width_mult\)"),
        ({"folder": "/"}, "unknown key 'folder'"),
        ({"epochs": "many"}, "'epochs' must be a whole number from 1, got 'many'"),
        ({"epochs": 2.5}, "'epochs' must be a whole number from 1, got 2.5"),
        ({"epochs": True}, "'epochs' must be a whole number from 1, got True"),
        ({"epochs": None}, "'epochs' must be a whole number from 1, got nothing"),
        ({"epochs": 0}, "'epochs' must be a whole number from 1, got 0"),
        ({"seed": -1}, "'seed' must be a whole number from 0, got -1"),
        ({"learning_rate": "fast"}, "'learning_rate' must be a number greater than 0, got 'fast'"),
        ({"learning_rate": float("nan")}, "'learning_rate' must be a number greater than 0, got nan"),
        ({"budget_ms": 0}, "'budget_ms' must be a number greater than 0, got 0"),
        ({"latency_weight": float("inf")}, "'latency_weight' must be a number of at least 0, got inf"),
        ({"momentum": 1.0}, "'momentum' must be a number from 0 to below 1, got 1.0"),
        ({"space": 3}, r"'space' must be a string, got 3 \(int\)"),
        ({"download": "yes please"}, "'download' must be true or false"),
        ({"objective": "add_liner"}, r"unknown objective 'add_liner'; did you mean 'add_linear'\?"),
        ({"arch_gradient": "both"}, "unknown arch_gradient 'both'.*full, reinforce, two_path"),
        ({"strategy": "proxless"}, r"unknown strategy 'proxless'; did you mean 'proxyless'\?"),
        ({"targets": ["cpu"]}, "'targets' must be a mapping"),
        ({"arch_fraction": 0.6, "held_out_fraction": 0.4}, "must leave images for the weights"),
    ],
)
def test_bad_recipes_are_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(content)


@pytest.mark.parametrize(
    ("content", "given", "source"),
    [
        ({"epochs": 5}, {"epochs": "abc"}, "command line: 'epochs'"),
        ({"epochs": "abc"}, {"seed": 1}, "recipe FILE: 'epochs'"),
        ({"epochs": 5}, {"epoch": 5}, "command line: unknown key 'epoch'"),
        ({"epochs": 0}, {"seed": -1}, "recipe FILE: 'epochs' .*; command line: 'seed'"),
        ({"epochs": 5}, {"warmup_epochs": 7}, "command line, with recipe FILE: 'warmup_epochs' .* got 7 of 5"),
        ({"epochs": 5}, {"epochs": 2, "warmup_epochs": 3}, "command line: 'warmup_epochs' .* got 3 of 2"),
        ({"epochs": 2, "warmup_epochs": 3}, {"seed": 1}, "recipe FILE: 'warmup_epochs' .* got 3 of 2"),
        ({"budgets": {"parameters": 5}}, {"target": ["a"], "budget_ms": 1}, "command line: 'target' must be a string"),
        ({"budgets": 5}, {"budget_ms": 1}, "recipe FILE: 'budgets' must be a mapping"),
        ({}, {"budget_ms": 1, "budget_fraction": 0.5}, "command line: give budget_ms=1.0 or budget_fraction=0.5"),
        ({"budget_ms": 1, "budget_fraction": 0.5}, {"budget_ms": 2}, "recipe FILE: give budget_ms"),
    ],
)
def test_a_message_names_the_source_of_the_wrong_value(
    content: dict[str, Any], given: dict[str, Any], source: str, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RecipeError, match="^" + source.replace("FILE", re.escape(str(path)))):
        Recipe.load(path, given, "command line")


_LISTED = {"phone": 5, "parameters": 100}


@pytest.mark.parametrize(
    ("content", "given", "kept", "line"),
    [
        ({"budget_fraction": 0.5}, {"budget_ms": 2}, (2.0, None, {}), "budget_ms=2 replaces budget_fraction=0.5 of"),
        ({"budget_ms": 2}, {"budget_fraction": 0.5}, (None, 0.5, {}), "budget_fraction=0.5 replaces budget_ms=2 of"),
        ({"budgets": _LISTED}, {"budget_ms": 2}, (2.0, None, {"parameters": 100}), "{'parameters': 100} is left"),
        ({"budget_ms": 2}, {"budgets": _LISTED}, (None, None, _LISTED), "replaces budget_ms=2 of"),
        ({"budget_ms": 2}, {"budgets": {"parameters": 9}}, (2.0, None, {"parameters": 9}), ""),  # of something else
        ({"budget_ms": 2}, {"budget_ms": 3}, (3.0, None, {}), ""),
        ({"budget_ms": 2}, {"budget_fraction": None}, (2.0, None, {}), ""),
        (
            {"strategy": "darts", "strategy_args": {"a": 1}},
            {"strategy": "proxyless"},
            (None, None, {}),
            "strategy_args=",
        ),
    ],
)
def test_a_given_value_replaces_the_other_form_of_it(
    content: dict[str, Any],
    given: dict[str, Any],
    kept: tuple[Any, ...],
    line: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = {"target": "phone", "targets": {"phone": {"backend": "torch"}}}
    path = tmp_path / "recipe.yml"
    path.write_text(yaml.safe_dump({**target, **content}))
    with caplog.at_level("INFO", "nni_proxyless"):
        recipe = Recipe.load(path, given, "command line")
    assert (recipe.budget_ms, recipe.budget_fraction, recipe.budgets) == kept
    assert recipe.strategy_args == {}
    told = [text for text in caplog.messages if text.startswith("command line: ")]
    assert len(told) == bool(line)
    assert line in "".join(told)


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "", "a: [1", "3"])
def test_yaml_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=f"recipe {path}"):
        Recipe.load(path)


@pytest.mark.parametrize(
    ("targets", "target", "message"),
    [
        ({}, "gpu", r"unknown target 'gpu' \(allowed: cpu_onnxruntime, cpu_torch\)"),
        ({"mine": {"backend": "torch"}}, "mime", "did you mean 'mine'"),
        ({"mine": {}}, "mine", "needs 'table', a file that predicts latencies, or 'backend', which measures, or both"),
        ({"mine": {"table": "t.yml", "threads": 2}}, "mine", "threads needs 'backend', which measures"),
        ({"mine": {"backend": "torch", "thread": 1}}, "mine", "unknown key 'thread'; did you mean 'threads'"),
        ({"mine": "torch"}, "mine", "must be a mapping with table, backend"),
        ({"mine": {"table": 3}}, "mine", "table must be a path, got 3"),
    ],
)
def test_bad_targets_are_refused(targets: dict[str, Any], target: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"targets": targets, "target": target}).chosen_target()


def test_paths_start_from_the_recipes_folder(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text("data_dir: images\ntarget: phone\ntargets: {phone: {table: tables/phone.yml}}\n")
    recipe = Recipe.load(path)
    assert recipe.resolve("images") == tmp_path / "images"
    assert recipe.chosen_target().table == tmp_path / "tables" / "phone.yml"


def test_a_recipe_with_absolute_paths_means_the_same_anywhere(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "recipe.yml"
    path.write_text(
        "space: mine.yml\ndata_dir: ../images\ntarget: phone\n"
        "targets: {phone: {table: phone.yml}, pc: {backend: torch}}\n"
    )
    recipe = Recipe.load(path)
    moved = Recipe.from_dict(recipe.to_dict(absolute=True), tmp_path / "elsewhere")
    assert moved.chosen_target().table == tmp_path / "a" / "phone.yml"
    assert moved.data_dir == str(tmp_path / "images")
    assert moved.space == str(tmp_path / "a" / "mine.yml")
    assert recipe.to_dict()["space"] == "mine.yml"
    assert Recipe.from_dict({}).to_dict(absolute=True) == Recipe.from_dict({}).to_dict()


def test_shipped_recipes_are_good() -> None:
    for path in sorted((REPOSITORY / "experiments").glob("*/recipe.yml")):
        if "--task retrain" in (path.parent / "config.yml").read_text():
            assert RetrainRecipe.load(path).epochs > 0
        else:
            Recipe.load(path).chosen_target()
    assert experiment_file("quickstart", "recipe.yml") == REPOSITORY / "experiments" / "quickstart" / "recipe.yml"
