"""Results of an earlier search in a folder: which settings differ, and when they are replaced."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError, RecipeError
from ..files import results_folder
from ..files.settings import Settings
from ..files.writing import writing

Begin = Callable[[int], None]


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


@contextmanager
def replacing(folder: Path, write: Callable[[], None]) -> Iterator[Begin]:
    """Context manager of a run that replaces the results of an earlier one as late as possible.

    It yields a function to be called before the new run writes its first results, with the number of bytes that it
    needs. On the first call, the function removes the files and TensorBoard logs of the earlier run, so that they do
    not mix with the new ones, if there is room for the new ones. If the run ends before, the folder is as it was.

    Args:
        folder: Folder of the results.
        write: Function that writes the first files of the new run.
    """
    logs = folder / results_folder.TENSORBOARD
    earlier = _files(logs)
    begun = False

    def begin(size: int) -> None:
        nonlocal begun
        if begun:
            return
        if any((folder / name).exists() for name in results_folder.COLLECTED):
            _check_room(folder, size)
        begun = True
        for name in results_folder.COLLECTED:
            (folder / name).unlink(missing_ok=True)
        for path in earlier:
            if path.name.startswith("events.out.tfevents."):
                path.unlink(missing_ok=True)
        write()

    try:
        yield begin
    finally:
        if not begun:
            for path in _files(logs) - earlier:
                path.unlink(missing_ok=True)
            if not earlier:
                with suppress(OSError):  # there is none, or it is a folder of the user's
                    logs.rmdir()


def _check_room(folder: Path, size: int) -> None:
    """Check that the disk has space for a number of bytes.

    Raises:
        WriteError: The disk has less space.
    """
    with writing(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(size, 1))


def _files(folder: Path) -> set[Path]:
    return set() if folder.is_symlink() else {path for path in folder.rglob("*") if path.is_file()}
