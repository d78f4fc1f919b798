"""Checks of a recipe's target, space and data before torch is imported, so that a mistake is reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.folders import check_data_files
from ..errors import SpaceError
from ..files.reading import open_regular
from ..network.space_files import space_file
from .recipe import Recipe

if TYPE_CHECKING:
    from ..files.settings import Settings


def check_inputs(settings: Settings) -> None:
    """Check that the target, the space and the data of a search or a retraining exist.

    Only names are compared, and files are only looked for.

    Args:
        settings: Recipe of a search or of a retraining.

    Raises:
        InputError: One of them does not exist.
    """
    recipe: Any = settings
    if isinstance(settings, Recipe):
        settings.described_target().check()
    if recipe.space is not None:
        open_regular(space_file(recipe.space, Path(recipe.folder)), "space", SpaceError).close()
    check_data_files(
        recipe.data, None if recipe.data_dir is None else recipe.resolve(recipe.data_dir), download=recipe.download
    )
