"""Results of an earlier search in a folder: which settings differ, and removal of its files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from .. import results_folder
from ..errors import InputError, RecipeError
from ..settings import Settings


def check_same_recipe(folder: Path, recipes: Collection[Settings], hint: str, ignored: Iterable[str] = ()) -> None:
    """Check that a folder holds no results of another recipe, which would be replaced.

    Args:
        folder: Folder of the results of one search or retraining. It need not exist.
        recipes: Recipes of the new run; the earlier one must be one of them.
        hint: What to do otherwise, for the message.
        ignored: Keys that may differ.

    Raises:
        InputError: The folder holds results of another recipe. The message names the keys that differ.
    """
    path = folder / results_folder.RECIPE
    if not path.is_file():
        return
    differing = None
    for recipe in recipes:
        try:
            before = type(recipe).load(path).to_dict(absolute=True)
        except RecipeError:
            continue
        now = recipe.to_dict(absolute=True)
        keys = sorted(key for key in now if key not in set(ignored) and now[key] != before.get(key))
        if not keys:
            return
        differing = keys if differing is None or len(keys) < len(differing) else differing
    named = "another kind of recipe" if differing is None else f"another recipe (different: {', '.join(differing)})"
    raise InputError(f"{folder} holds the results of {named}, which would be replaced; {hint}")


def remove_earlier(folder: Path) -> None:
    """Remove the files and TensorBoard logs of an earlier run from a folder, so that they do not mix with new ones."""
    for name in results_folder.COLLECTED:
        (folder / name).unlink(missing_ok=True)
    logs = folder / results_folder.TENSORBOARD
    if logs.is_dir() and not logs.is_symlink():
        for path in logs.glob("**/events.out.tfevents.*"):
            path.unlink(missing_ok=True)
