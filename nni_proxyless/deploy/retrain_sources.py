"""What a retraining takes from elsewhere: its architecture, and settings from the recipe of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..data.image_settings import ImageSettings
from ..data.names import names_a_function
from ..errors import RecipeError, clipped, unknown_name
from ..files import results_folder
from ..files.reading import read_mapping
from ..network.architecture import Architecture
from ..network.catalogue import by_name
from ..network.space_spec import SpaceSpec

# Keys that a retraining copies from the recipe of the search, so that it uses the same data with the same split.
_OF_THE_SEARCH = (
    "space", "data", "data_dir", "download", "arch_fraction", "held_out_fraction", *ImageSettings.model_fields,
)  # fmt: skip


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
        like = None if recipe.space is None else SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
        found = Architecture.of_space(*by_name(recipe.architecture, like))
    return found.for_images(recipe.input_size, recipe.input_channels)


def check_names_no_function(path: Path, hint: str) -> None:
    """Check that a recipe which the user has not named would run no function. It may come with foreign results.

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


def of_search(path: Path, recorded: bool = True) -> dict[str, Any]:
    """Read the settings that a retraining copies from the `recipe.yml` of a search or of an earlier retraining.

    Args:
        path: Path of the recipe.
        recorded: Whether mean and standard deviation of the images are those that were recorded beside the recipe, if
            they were.

    Raises:
        RecipeError: The file cannot be read, or is no recipe.
        DataError: What was recorded cannot be read.
    """
    from ..search.recipe import Recipe

    content = read_mapping(path, "recipe", RecipeError)
    keys = {*Recipe.keys(), *RetrainRecipe.keys()}
    for key in content:
        if key not in keys:
            raise RecipeError(f"recipe {path}: {unknown_name('key', key, keys)}")
    found = {key: content[key] for key in _OF_THE_SEARCH if key in content}
    if recorded and (path.parent / results_folder.PREPROCESSING).is_file():
        from ..data.preprocessing_file import read_preprocessing

        known = read_preprocessing(path.parent)
        if known is not None and known[0].known:
            found |= {"mean": list(known[0].mean), "std": list(known[0].std)}
    seed = content.get("split_seed", content.get("seed"))
    return found if seed is None else {**found, "split_seed": seed}
