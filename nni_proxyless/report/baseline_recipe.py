"""The recipe that baselines share with the retraining of a found network."""

from __future__ import annotations

from ..deploy.retrain_recipe import RetrainRecipe, check_names_no_function
from ..errors import InputError, RecipeError
from ..files import results_folder
from ..files.reading import read_mapping
from .results import Trained


def can_have_baselines(trained: Trained) -> bool:
    """Whether `recipe_of_baselines` accepts the recipe of a found network's retraining."""
    try:
        recipe_of_baselines(trained)
    except InputError:
        return False
    return True


def recipe_of_baselines(trained: Trained) -> RetrainRecipe:
    """Return the recipe of a retraining, for other networks.

    Raises:
        InputError: It cannot be used for other networks.
    """
    path = trained.folder / results_folder.RECIPE
    check_names_no_function(path, "train the baselines by hand: nni-proxyless retrain mobilenet_v2 data={data}")
    content = read_mapping(path, "recipe", RecipeError)
    content |= {"architecture": results_folder.ARCHITECTURE, "inherit": None}
    for key in ("fine_tune", "freeze_batch_norm"):
        if content.get(key):
            raise InputError(
                f"{trained.name} adapts inherited weights ({key}), which a baseline does not have; retrain it from "
                "scratch first, or into another folder (retrain --output)"
            )
    recipe = RetrainRecipe.from_dict(content, path.resolve().parent, f"recipe {path}")
    if recipe.ranks > 1:
        raise InputError(
            f"{trained.name} was trained on {recipe.ranks} devices; train the baselines by hand (docs/retrain.md), or "
            "retrain it on one device first"
        )
    return recipe
