"""The latency tables of `decode`, and their names: those of targets, by which budgets and results are named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, LatencyTableError, RecipeError, clipped
from ..files import results_folder

if TYPE_CHECKING:
    from ..latency.table import LatencyTable

HINT = "; --table NAME=FILE makes NAME a target"


@dataclass(frozen=True)
class NamedTables:
    """Latency tables by name, which are read when they are needed.

    Attributes:
        files: Function that reads the table, by name.
        other_names: Names of their files that mean the same as a name of `files`.
    """

    files: dict[str, Callable[[], LatencyTable]]
    other_names: dict[str, str] = field(default_factory=dict)

    def name(self, text: str) -> str:
        """Return the name of the table that a budget or a quantity means."""
        return self.other_names.get(text, text)

    def load(self) -> dict[str, LatencyTable]:
        """Read all tables.

        Raises:
            InputError: One cannot be read.
        """
        return {name: read() for name, read in self.files.items()}


def named_tables(words: Sequence[Path], search: Path, wanted: Iterable[str]) -> NamedTables:
    """Name the tables of `--table`, and add those of the search itself that a budget or a quantity names.

    `NAME=FILE` names a table. The `latency_table.yml` of a search is named after the target of the search, and other
    tables are named after their files.

    Args:
        words: Arguments of `--table`.
        search: Checkpoint of the search, or its folder.
        wanted: Names of budgets and quantities.

    Raises:
        InputError: Two tables have the same name, or a name could lead out of a folder.
    """
    from ..decoding.budgets import QUANTITIES
    from ..files.writing import check_name
    from ..latency.judgement import load_judged

    paths: dict[str, Path] = {}
    for word in words:
        name, path = _name_and_file(word)
        check_name(name, "the name of a table", InputError)
        if name in paths:
            raise InputError(
                f"two tables are called {name}; the results are named after them, so name them as in --table "
                f"first={clipped(str(paths[name]))} second={clipped(str(path))}"
            )
        paths[name] = path
    files: dict[str, Callable[[], LatencyTable]] = {}
    files |= {name: partial(load_judged, path) for name, path in paths.items()}
    stems = [path.stem for path in paths.values()]
    others = {path.stem: name for name, path in paths.items() if stems.count(path.stem) == 1 and path.stem not in paths}
    missing = [name for name in wanted if name not in files and name not in others and name not in QUANTITIES]
    if missing:
        own = _own_tables(search if search.is_dir() else search.parent)
        # The message about an unknown name lists all.
        files |= {name: own[name] for name in missing} if set(missing) <= own.keys() else own
    return NamedTables(files, others)


def _name_and_file(word: Path) -> tuple[str, Path]:
    name, found, file = str(word).partition("=")
    if found and name and file and not os.path.lexists(word):
        return name, Path(file)
    target = _target(word.parent) if word.name == results_folder.LATENCY_TABLE else None
    return target or word.stem, word


def _target(folder: Path) -> str | None:
    """Return the name of the target of the search in a folder; `None` if it is not known."""
    from ..files.reading import read_mapping
    from ..search.recipe import Recipe

    if not (folder / results_folder.RECIPE).is_file():
        return None
    try:
        found = read_mapping(folder / results_folder.RECIPE, "recipe", RecipeError)
    except RecipeError:
        return None
    target = found.get("target", Recipe.model_fields["target"].default)
    return target if isinstance(target, str) and target else None


def _own_tables(folder: Path) -> dict[str, Callable[[], LatencyTable]]:
    """Return the tables in the folder of a search: that of its target, and those of further targets with budgets."""
    from ..files.reading import read_mapping
    from ..latency.judgement import load_judged
    from ..search.other_tables import load_tables

    own: dict[str, Callable[[], LatencyTable]] = {}
    target = _target(folder)
    if target is not None and (folder / results_folder.LATENCY_TABLE).is_file():
        own[target] = partial(load_judged, folder / results_folder.LATENCY_TABLE)
    path = folder / results_folder.OTHER_TABLES
    if path.is_file():
        for name in read_mapping(path, "latency tables", LatencyTableError):
            own[str(name)] = partial(lambda key: load_tables(path)[key], str(name))
    return own
