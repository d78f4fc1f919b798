"""Input of a retraining from other files: its architecture, and settings from the recipe of a search."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.names import names_a_function
from ..errors import ArchitectureError, RecipeError, clipped
from ..files.nearby import no_such_path
from ..files.reading import read_mapping
from ..network.architecture import Architecture
from ..network.catalogue import by_name
from ..network.space_spec import SpaceSpec

# Defaults of a retraining that only adapts its weights.
_FINE_TUNING = {"epochs": 10, "warmup_epochs": 0, "learning_rate": 0.005}


def shorter_defaults(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that differ with `fine_tune`, or with three epochs or fewer."""
    if settings.get("fine_tune") is True:
        return dict(_FINE_TUNING)
    epochs = settings.get("epochs")
    return {"warmup_epochs": epochs - 1} if isinstance(epochs, int) and 1 <= epochs <= 3 else {}


def load_architecture(recipe: Any) -> Architecture:
    """Load the architecture of a recipe: from a file, or by the name of a published network or baseline.

    A named network takes the size and channels of the recipe, or of the recipe's space.

    Args:
        recipe: A `RetrainRecipe`.

    Raises:
        ArchitectureError: There is no such file or name, or the file is not an architecture file.
        SpaceError: The recipe's space does not exist.
    """
    if recipe.architecture_file is not None:
        found = Architecture.load(recipe.architecture_file)
    else:
        if os.sep in recipe.architecture:
            raise ArchitectureError(
                no_such_path(
                    recipe.resolve(recipe.architecture),
                    "give an architecture file, its folder, or the name of a network",
                )
            )
        like = None if recipe.space is None else SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
        found = Architecture.of_space(*by_name(recipe.architecture, like))
    return found.for_images(recipe.input_size, recipe.input_channels)


def check_names_no_function(path: Path, hint: str) -> None:
    """Check that a recipe which the user has not named runs no function. Such a recipe may come with foreign results.

    Args:
        path: Path of the recipe. It need not exist.
        hint: How the function is run on purpose, with `{data}` for its name.

    Raises:
        RecipeError: The recipe's data come from a function.
    """
    data = read_mapping(path, "recipe", RecipeError).get("data") if path.is_file() else None
    if isinstance(data, str) and names_a_function(data):
        named = clipped(data)
        raise RecipeError(
            f"recipe {path} takes its data from the function {named}, which is not run by itself; "
            + hint.format(data=named)
        )
