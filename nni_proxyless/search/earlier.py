"""Results of an earlier search in a folder: whether they may be replaced, and when this happens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import InputError, RecipeError, clipped
from ..files import results_folder
from ..files.reading import read_mapping
from ..files.settings import Settings
from ..files.writing import writing

Begin = Callable[[int], None]


_OVERWRITE = "choose another folder with --output, or replace them with --overwrite"


def check_earlier(folder: Path, recipe: Settings, needed: Iterable[str], *, overwrite: bool) -> None:
    """Check that a search or a retraining would not destroy results in its folder.

    Args:
        folder: Folder of the results. It need not exist.
        recipe: Recipe of the new run.
        needed: Names of the files from which a run of this kind continues.
        overwrite: Whether earlier results may be replaced.

    Raises:
        InputError: The folder contains results of another recipe, or finished ones of this recipe without the files
            from which the run would continue, or something other than a file has the name of a result.
    """
    check_places(folder)
    if overwrite:
        return
    check_same_recipe(folder, [recipe], _OVERWRITE)
    finished = any((folder / name).is_file() for name in results_folder.AT_THE_END)
    missing = [name for name in needed if finished and not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds finished results of this recipe, which would be replaced, because {missing[0]} is missing "
            f"there; {_OVERWRITE}"
        )


def check_places(folder: Path) -> None:
    """Check that each result in a folder is a file, or a link to one, because it is to be read or replaced.

    Raises:
        InputError: It is a folder, a device or a link to nothing.
    """
    for name in results_folder.COLLECTED:
        path = folder / name
        if os.path.lexists(path) and not path.is_file():
            what = "a link to something other than a file" if path.is_symlink() else "not a file"
            raise InputError(
                f"{clipped(str(path))} is {what}, so no result can be read or written there; move it elsewhere, or "
                "choose another folder"
            )


def check_same_recipe(folder: Path, recipes: Collection[Settings], hint: str, ignored: Iterable[str] = ()) -> None:
    """Check that a folder holds no results of another recipe, which would be replaced.

    Args:
        folder: Folder of the results of one search or retraining. It need not exist.
        recipes: Recipes of the new run; the earlier one must be one of them.
        hint: What to do otherwise, for the message.
        ignored: Keys that may differ.

    Raises:
        InputError: The folder holds results of another recipe, or of one that cannot be read. The message names the
            keys that differ.
    """
    path = folder / results_folder.RECIPE
    if not path.is_file():
        found = [name for name in results_folder.COLLECTED if (folder / name).is_file()]
        if found:
            raise InputError(f"{folder} holds {found[0]} without a {path.name}, which would be replaced; {hint}")
        return
    try:
        read_mapping(path, "recipe", RecipeError)
    except RecipeError as reason:
        raise InputError(f"{folder} holds results, which would be replaced, but {reason}; {hint}") from reason
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
