"""Python, recipes and the quickstart do the same search: each setting has one default, stated once."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from nni_proxyless import ProxylessNAS
from nni_proxyless.errors import InputError
from nni_proxyless.files.resources import experiment_file
from nni_proxyless.files.settings import markdown_table
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.make_strategy import NNI_STRATEGIES, make_strategy
from nni_proxyless.search.recipe import STRATEGIES, Recipe
from nni_proxyless.strategies.arch_settings import ArchSettings, ObjectiveName
from nni_proxyless.strategies.objective import OBJECTIVES
from nni_proxyless.supernet.space import MobileNetV2Space
from tests import toy
from tests.helpers import REPOSITORY


def test_python_recipes_and_the_quickstart_do_the_same_search(tiny_spec: SpaceSpec, tiny_table: LatencyTable) -> None:
    python = ProxylessNAS(latency=tiny_table, budget_ms=40)
    recipe = make_strategy(Recipe.from_dict({"budget_ms": 40}), tiny_table, tiny_spec, 10)
    quickstart = make_strategy(Recipe.load(experiment_file("quickstart", "recipe.yml")), tiny_table, tiny_spec, 10)
    for strategy in (python, recipe, quickstart):
        assert isinstance(strategy, ProxylessNAS)
        assert strategy.arch == ArchSettings()
        assert strategy.objective_name == "budget"
        assert strategy._num_finalists == 64
        assert (strategy.arch.arch_gradient, strategy.arch.effective_arch_update_every) == ("full", 2)
        assert strategy.arch.effective_arch_weight_decay == 0.001
        assert strategy.budget_request is not None
        assert strategy.budget_request.hard
    assert MobileNetV2Space(tiny_spec).entangled is Recipe.from_dict({}).entangle_weights is True


def test_names_that_a_recipe_allows_are_the_names_that_exist() -> None:
    assert set(STRATEGIES) == {"proxyless", *NNI_STRATEGIES}
    assert set(get_args(ObjectiveName)) == set(OBJECTIVES)


def test_every_architecture_setting_of_a_recipe_reaches_the_strategy(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    changed = {
        "objective": "add_linear", "latency_weight": 0.3, "arch_gradient": "two_path", "arch_learning_rate": 0.2,
        "arch_beta1": 0.4, "arch_beta2": 0.5, "arch_weight_decay": 0.6, "arch_schedule": "cosine",
        "arch_update_every": 7, "arch_samples": 3, "arch_batch_norm": "running", "reinforce_samples": 5,
        "warmup_epochs": 2, "warmup_sampling": "fair", "weight_sampling": "fair", "sharpen_epochs": 4,
        "sharpen_temperature": 0.7, "prune_below": 0.01, "finalists": 9, "finalist_epochs": 1,
        "finalist_steps": 5,
    }  # fmt: skip
    assert set(changed) == set(ArchSettings.model_fields)  # a new setting has to be added here
    assert all(ArchSettings.model_fields[key].default != value for key, value in changed.items())
    made = make_strategy(Recipe.from_dict({**changed, "epochs": 20}), tiny_table, tiny_spec, 10)
    assert isinstance(made, ProxylessNAS)
    assert made.arch.to_dict() == changed
    python = ProxylessNAS(latency=tiny_table, **changed)
    assert python.arch == made.arch
    others = {key: value for key, value in changed.items() if key not in {"arch_beta1", "arch_beta2"}}
    pair = ProxylessNAS(**others, arch_betas=(0.4, 0.5), latency=tiny_table)
    assert pair.arch == made.arch


def test_arguments_are_shown_and_a_mistyped_one_is_refused() -> None:
    parameters = inspect.signature(ProxylessNAS).parameters
    assert {"latency", "budget_ms", *ArchSettings.model_fields} <= set(parameters)
    assert parameters["arch_gradient"].default == "full"
    assert "arch_update_every: " in (ProxylessNAS.__doc__ or "")
    with pytest.raises(InputError, match=r"unknown argument 'arch_gradiant'; did you mean 'arch_gradient'\?"):
        ProxylessNAS(arch_gradiant="full")


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ArchSettings().arch_gradient = "full"  # type: ignore[misc]


def test_several_mistakes_are_one_line() -> None:
    with pytest.raises(InputError) as refused:
        ArchSettings.checked({"latency_weight": -1, "arch_beta1": 2, "finalists": 0, "arch_samples": 0, "xyz": 1})
    message = str(refused.value)
    assert "\n" not in message
    assert "latency_weight must be a number of at least 0, got -1 (int); " in message
    assert message.endswith("(and 2 more)")


def test_the_schema_describes_every_key() -> None:
    command = [sys.executable, "-m", "nni_proxyless", "schema", "recipe"]
    schema = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert set(schema["properties"]) == set(Recipe.keys())
    assert schema["additionalProperties"] is False
    assert all(len(described["description"]) > 10 for described in schema["properties"].values())
    assert schema["properties"]["epochs"] | {"description": ""} == {
        "default": 30, "description": "", "minimum": 1, "maximum": 1_000_000, "title": "Epochs", "type": "integer",
    }  # fmt: skip
    assert schema["properties"]["arch_gradient"]["enum"] == ["two_path", "full", "reinforce"]
    printed = subprocess.run([*command, "--markdown"], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == markdown_table(Recipe)
    assert printed.strip() in (REPOSITORY / "docs" / "recipe.md").read_text()


def test_a_plain_search_has_the_defaults_too() -> None:
    strategy = ProxylessNAS()
    assert strategy.objective_name == "add_linear"
    assert strategy._num_finalists == 1  # accuracies know nothing of latency
    strategy.mutate_model(toy.Features())
    assert strategy.budget_ms is None
    assert strategy.limit_ms is None


class Own(ProxylessNAS):
    """User's strategy with other defaults."""

    def __init__(self, *, finalists: int = 16, arch_betas: tuple[float, float] = (0.0, 0.9), **kwargs: Any) -> None:
        super().__init__(finalists=finalists, arch_betas=arch_betas, **kwargs)


def test_a_subclass_keeps_its_defaults_and_gets_the_recipes_values(
    tiny_spec: SpaceSpec, tiny_table: LatencyTable
) -> None:
    own = f"{__name__}:Own"
    made = make_strategy(Recipe.from_dict({"strategy": own, "arch_beta1": 0.5}), tiny_table, tiny_spec, 10)
    assert isinstance(made, Own)
    assert (made.arch.finalists, made.arch.arch_beta1, made.arch.arch_beta2) == (16, 0.5, Recipe().arch_beta2)
    made = make_strategy(Recipe.from_dict({"strategy": own, "finalists": 3}), tiny_table, tiny_spec, 10)
    assert isinstance(made, Own)
    assert made.arch.finalists == 3
    with pytest.raises(InputError, match="arch_betas sets both betas, got arch_beta1 too"):
        ProxylessNAS(arch_betas=(0.4, 0.5), arch_beta1=0.4)
