"""Checks of a recipe's target, space and data before torch is imported, so that a mistake is reported at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .prepared import check_files
from .recipe import Recipe

if TYPE_CHECKING:
    from ..files.settings import Settings


def check_inputs(settings: Settings) -> None:
    """Check that the target, the space and the data of a search or a retraining exist.

    Args:
        settings: Recipe of a search or of a retraining.

    Raises:
        InputError: One of them does not exist.
    """
    recipe: Any = settings
    if isinstance(settings, Recipe):
        settings.described_target().check()
        check_files(settings)
    else:
        recipe.check_files()
