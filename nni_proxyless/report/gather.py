"""Reading the results that a report shows, from a folder or from an NNI experiment, which may still be running."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, LatencyTableError, RecipeError, clipped, shown
from ..files import results_folder
from ..files.nearby import did_you_mean
from ..files.parsing import parse_json
from ..files.reading import read_mapping, read_rows, read_text, user_path
from ..latency import LatencyTable
from ..network.architecture import Architecture
from ..search.other_tables import load_tables
from .checks import (
    Rows,
    check_card,
    checked_cost,
    checked_export,
    checked_front,
    checked_history,
    checked_probabilities,
    checked_recipe,
    clean,
)
from .results import Front as Front
from .results import Results as Results
from .results import Search as Search
from .results import Trained as Trained

_MOST_PROBLEMS = 50
FRONTS = "front*.csv"  # files that `decode --front` wrote, if they are called so


def find_results(text: str) -> Results:
    """Read the results in a folder, or the results of the trials of an NNI experiment on this machine.

    Args:
        text: Path of the folder, or id of the experiment.

    Raises:
        InputError: There is neither such a folder nor such an experiment, or it contains no results of this package.
    """
    folder = user_path(text, "results", InputError)
    if folder.is_dir():
        return gather(folder, clean(folder.resolve().name))
    known = _experiments()
    if text not in known:
        raise InputError(
            f"there is no folder {clipped(text)} and no NNI experiment of this id; give a folder of results such as "
            f"results/quickstart, or an id that `nnictl experiment list --all` shows"
            f"{_near(text, known) or did_you_mean(folder)}"
        )
    home = known[text]
    trials = home / "environments" / "local-env" / "trials"
    return gather(trials if trials.is_dir() else home, f"experiment {text}")


def _near(text: str, known: Mapping[str, Path]) -> str:
    close = difflib.get_close_matches(text, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _experiments() -> dict[str, Path]:
    """Mapping from the ids of NNI's experiments on this machine to their folders."""
    base = Path.home() / "nni-experiments"
    found = (
        {path.name: path for path in base.iterdir() if path.is_dir() and path.name[0] not in "._"}
        if base.is_dir()
        else {}
    )
    try:
        text = read_text(base / ".experiment", "list of experiments", InputError)
        listed = parse_json(text, "list of experiments", InputError)
    except InputError:
        return found
    for name, entry in listed.items() if isinstance(listed, dict) else ():
        folder = Path(str((isinstance(entry, dict) and entry.get("logDir")) or base)) / name
        if os.path.isdir(folder):  # unlike the method of a path, it raises nothing
            found[name] = folder
    return {name: path for name, path in found.items() if name != "_latest"}


def gather(folder: Path, title: str) -> Results:
    """Read all searches, retrainings and exports below a folder.

    Raises:
        InputError: The folder contains no searches or retrainings of this package.
    """
    problems: list[str] = []
    searches = [_search(path, folder, problems) for path in _found(folder, results_folder.HISTORY, problems)]
    cards = [path for path in _found(folder, results_folder.MODEL_CARD, problems) if not _is_exported(path)]
    trained = [_trained(path, folder, problems) for path in cards]
    exports: dict[str, dict[str, Any]] = {}
    for path in _found(folder, results_folder.EXPORT, problems):
        content = _read(path, "export", problems)
        if content is not None:
            export, fault = checked_export(content)
            exports[_name(path.parent, folder)] = {**export, "folder": path.parent}
            _note(problems, path, fault)
    fronts = [_front(path, folder, problems) for path in _found(folder, FRONTS, problems)]
    problems = [clean(text, 500) for text in dict.fromkeys(problems)]
    if len(problems) > _MOST_PROBLEMS:
        problems[_MOST_PROBLEMS:] = [f"{len(problems) - _MOST_PROBLEMS} more files or parts of files"]
    shown_searches = [search for search in searches if search is not None]
    shown_trained = [network for network in trained if network is not None]
    if not shown_searches and not shown_trained:
        why = f" ({'; '.join(problems[:3])})" if problems else ""
        raise InputError(
            f"{folder} holds neither searches nor retrained networks of nni-proxyless{why}; give a folder of results "
            "such as results/quickstart. A search is shown once it has finished its first epoch"
        )
    shown_fronts = [front for front in fronts if front is not None]
    return Results(title, folder, shown_searches, shown_trained, exports, problems, shown_fronts)


def _is_exported(card: Path) -> bool:
    """Whether a model card is the copy beside exported files."""
    beside = card.parent
    return (beside / results_folder.EXPORT).exists() and not (beside / results_folder.HISTORY).exists()


def _found(folder: Path, name: str, problems: list[str]) -> list[Path]:
    try:
        return sorted(folder.rglob(name))
    except OSError as reason:
        problems.append(f"{folder} cannot be searched for {name}: {reason.strerror or reason}")
        return []


def _search(path: Path, folder: Path, problems: list[str]) -> Search | None:
    """Read the search whose history is at `path`; `None` if it cannot be shown, or is a retraining."""
    here = path.parent
    recipe = _read(here / results_folder.RECIPE, "recipe", problems)
    if recipe is None or "target" not in recipe:
        return None  # the history of a retraining
    try:
        recipe = checked_recipe(recipe)
    except InputError as reason:
        _note(problems, here / results_folder.RECIPE, str(reason))
        return None
    history, fault = checked_history(_rows(path, problems))
    _note(problems, path, fault)
    if not history:
        return None
    probabilities, fault = checked_probabilities(_rows(here / results_folder.PROBABILITIES, problems))
    _note(problems, here / results_folder.PROBABILITIES, fault)
    cost = _read(here / results_folder.COST, "cost", problems) if (here / results_folder.COST).is_file() else {}
    cost, fault = checked_cost(cost or {})
    _note(problems, here / results_folder.COST, fault)
    try:
        table = LatencyTable.load(here / results_folder.LATENCY_TABLE)
    except LatencyTableError as reason:
        problems.append(str(reason))
        table = None
    others = {}
    if (here / results_folder.OTHER_TABLES).is_file():
        try:
            others = load_tables(here / results_folder.OTHER_TABLES)
        except LatencyTableError as reason:
            problems.append(str(reason))
    network = here / results_folder.ARCHITECTURE
    architecture = _architecture(network, problems)
    damaged = architecture is None and network.exists()
    return Search(_name(here, folder), here, recipe, history, probabilities, cost, architecture, table, others, damaged)


def _trained(path: Path, folder: Path, problems: list[str]) -> Trained | None:
    card = _read(path, "model card", problems)
    architecture = _architecture(path.parent / results_folder.ARCHITECTURE, problems)
    if card is None or architecture is None:
        return None
    try:
        check_card(card)
    except InputError as reason:
        _note(problems, path, str(reason))
        return None
    found = card.get("cost")
    cost, fault = checked_cost(found if isinstance(found, dict) else {})
    _note(problems, path, fault if isinstance(found, dict) else f"'cost' must be a mapping, got {shown(found)}")
    return Trained(_name(path.parent, folder), path.parent, {**card, "cost": cost}, architecture)


def _front(path: Path, folder: Path, problems: list[str]) -> Front | None:
    """Read a front; `None` for another table whose name begins like one."""
    rows = _rows(path, problems)
    quantities, good, fault = checked_front(rows)
    _note(problems, path, fault)
    name = clean(path.relative_to(folder).as_posix(), 200)
    return Front(name, path, quantities, good) if quantities else None


def _note(problems: list[str], path: Path, fault: str | None) -> None:
    if fault is not None:
        problems.append(fault if path.name in fault else f"{path}: {fault}")


def _architecture(path: Path, problems: list[str]) -> Architecture | None:
    if not path.is_file():
        return None
    try:
        return Architecture.load(path)
    except InputError as reason:
        _note(problems, path, str(reason))
        return None


def _read(path: Path, what: str, problems: list[str]) -> dict[str, Any] | None:
    try:
        return read_mapping(path, what, RecipeError)
    except InputError as reason:
        problems.append(str(reason))
        return None


def _rows(path: Path, problems: list[str]) -> Rows:
    if not path.exists():
        return []
    try:
        return read_rows(path, "table", InputError)
    except InputError as reason:
        problems.append(str(reason))
        return []


def _name(folder: Path, base: Path) -> str:
    return clean(folder.relative_to(base).as_posix() if folder != base else base.resolve().name, 200)
