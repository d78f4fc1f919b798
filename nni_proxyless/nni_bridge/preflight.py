"""Checks of the recipes of an experiment that a trial would fail in, before NNI's manager starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch

from ..decoding.budget import BudgetRequest
from ..decoding.budgets import constraints_of
from ..decoding.constraints import likeliest_satisfying
from ..deploy.retrain import prepare_retraining
from ..deploy.retrain_recipe import RetrainRecipe
from ..latency.costs import SpaceCosts
from ..network.space_spec import SpaceSpec
from ..search.make_strategy import load_strategy
from ..search.prepared import check_batches, load_recipe_data
from ..search.recipe import STRATEGIES, Recipe
from ..training.trainer import check_hardware

# Keys of a retraining that do not change which files and images it needs.
_OF_THE_TRAINING = ("epochs", "warmup_epochs", "learning_rate", "seed", "ema_decay", "mixup_alpha", "cutmix_alpha")


def check_recipes(recipes: Iterable[Recipe | RetrainRecipe]) -> Iterator[tuple[Recipe, SpaceSpec]]:
    """Check that the machine, the data, the architectures, the weights and the strategy of each recipe are there.

    Args:
        recipes: Recipes of the experiment's trials.

    Yields:
        Each recipe of a search, with its space.

    Raises:
        InputError: A trial with one of the recipes would fail.
    """
    prepared = set()
    for recipe in recipes:
        check_hardware(recipe)
        if isinstance(recipe, RetrainRecipe):
            needed = repr([item for item in recipe.to_dict().items() if item[0] not in _OF_THE_TRAINING])
            if needed not in prepared:
                prepare_retraining(recipe)
                prepared.add(needed)
            continue
        spec, splits = load_recipe_data(recipe)
        check_batches(recipe, splits)
        if recipe.strategy not in STRATEGIES:
            load_strategy(recipe.strategy)
        yield recipe, spec


def check_budget(
    recipe: Recipe, costs: SpaceCosts, spec: SpaceSpec | None = None, latencies: Mapping[str, SpaceCosts] | None = None
) -> None:
    """Check that a network of the space is within the recipe's budget, unless the budget is only a reference.

    Args:
        recipe: Recipe of a search.
        costs: Latency table of its target, applied to its space.
        spec: Description of its space.
        latencies: Latency tables of all targets that have a budget, applied to its space.

    Raises:
        InputError: No network is within the budget.
    """
    hard = recipe.strategy != "proxyless" or recipe.objective in (None, "budget")
    request = BudgetRequest.of(recipe.budget_ms, recipe.budget_fraction, hard=hard)
    if request is not None:
        request.resolve(costs)
    if recipe.budgets and spec is not None:
        uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in costs.candidates.items()}
        likeliest_satisfying(uniform, constraints_of(recipe.limits(), latencies or {}, spec))
