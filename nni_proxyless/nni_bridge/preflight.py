"""Checks of the recipes of an experiment that a trial would fail in, before NNI's manager starts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..deploy.retrain import prepare_retraining
from ..deploy.retrain_recipe import RetrainRecipe
from ..network.space_spec import SpaceSpec
from ..search.make_strategy import load_strategy
from ..search.prepared import check_batches, load_recipe_data
from ..search.prepared import check_budget as check_budget
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
