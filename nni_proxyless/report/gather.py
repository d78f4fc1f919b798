"""Reading the results that a report shows, from a folder or from an NNI experiment, which may still be running."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError, LatencyTableError, RecipeError, clipped, shown
from ..files import results_folder
from ..files.parsing import parse_json
from ..files.reading import read_mapping, read_rows, read_text, user_path
from ..latency import LatencyTable
from ..network.architecture import Architecture
from .checks import (
    Rows,
    check_card,
    checked_cost,
    checked_export,
    checked_history,
    checked_probabilities,
    checked_recipe,
    clean,
    number_of,
)

_MOST_PROBLEMS = 50


@dataclass(frozen=True)
class Search:
    """One search, which may still be running.

    Attributes:
        name: Path of the search's folder, relative to the results.
        folder: Folder of the search.
        recipe: Settings of the search.
        history: One row of metrics for each epoch.
        probabilities: One row for each epoch, layer and candidate, with the candidate's probability.
        cost: Time, memory and steps of the search; empty if there is no `cost.json`, as in results of early versions.
        architecture: Network that the search found; `None` while the search runs.
        table: Latency table of the search; `None` if it cannot be read.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    history: Rows
    probabilities: Rows
    cost: Mapping[str, Any]
    architecture: Architecture | None
    table: LatencyTable | None

    @property
    def target(self) -> str:
        return str(self.recipe["target"])

    @property
    def strategy(self) -> str:
        return str(self.recipe["strategy"])

    @property
    def running(self) -> bool:
        return self.architecture is None

    @property
    def warnings(self) -> list[str]:
        """What the search has found wrong with itself, in the order in which it was found."""
        rows = [(row.get("warnings") or "").split(results_folder.WARNING_SEPARATOR) for row in self.history]
        told = [text for row in rows for text in row if text]
        late = () if self.architecture is None else self.architecture.warnings
        return list(dict.fromkeys([*told, *late]))

    @property
    def accuracy(self) -> float:
        """Accuracy of the network that was found, or decoded in the last epoch, with the supernet's weights."""
        found = None if self.architecture is None else number_of(self.architecture.metrics.get("default"))
        return float(self.history[-1]["default"]) if found is None else found

    @property
    def latency_ms(self) -> float:
        found = None if self.architecture is None else self.architecture.predicted_latency_ms
        return float(self.history[-1]["latency_ms"]) if found is None else found


@dataclass(frozen=True)
class Trained:
    """A network that was retrained.

    Attributes:
        name: Path of the network's folder, relative to the results.
        folder: Folder of the network.
        card: Model card of the network. Its `cost` may lack any value.
        architecture: Architecture of the network.
    """

    name: str
    folder: Path
    card: Mapping[str, Any]
    architecture: Architecture

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the held-out part, between 0 and 1."""
        return float(self.card["results"]["validation"]["top1"])

    @property
    def is_baseline(self) -> bool:
        """Whether the network is a named one, rather than the result of a search for a target."""
        return self.architecture.target is None


@dataclass(frozen=True)
class Results:
    """All results that a report shows.

    Attributes:
        title: Title of the report.
        folder: Folder of the results.
        searches: Searches that have finished at least one epoch.
        trained: Retrained networks.
        exports: Content of each `export.json`, by the path of its folder relative to the results.
        problems: Messages about files that could not be read.
    """

    title: str
    folder: Path
    searches: list[Search]
    trained: list[Trained]
    exports: Mapping[str, Mapping[str, Any]]
    problems: list[str] = field(default_factory=list)

    @cached_property
    def targets(self) -> list[str]:
        """Targets of the searches, in the order in which they first appear."""
        return list(dict.fromkeys(search.target for search in self.searches))

    def table(self, target: str) -> LatencyTable | None:
        """Return the latency table of a target, or `None` if no search for it has one."""
        return next((s.table for s in self.searches if s.target == target and s.table is not None), None)

    def retrained(self, search: Search) -> Trained | None:
        """Return the most accurate retraining of the network that a search found, or `None` if there is none."""
        found = search.architecture
        if found is None:
            return None
        own = [
            t
            for t in self.trained
            if (t.architecture.target, dict(t.architecture.choices)) == (found.target, dict(found.choices))
        ]
        return max(own, key=lambda trained: trained.accuracy, default=None)

    def accuracy(self, search: Search) -> float:
        """Return the accuracy of the retrained network if there is one, otherwise that with the supernet's weights."""
        trained = self.retrained(search)
        return search.accuracy if trained is None else trained.accuracy

    def best(self, target: str) -> Search | None:
        """Return the finished search of a target with the most accurate network; a tie goes to the faster network."""
        finished = [s for s in self.searches if s.target == target and not s.running]
        return max(finished, key=lambda s: (self.accuracy(s), -s.latency_ms), default=None)


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
            f"results/quickstart, or an id that `nnictl experiment list --all` shows{_near(text, known)}"
        )
    home = known[text]
    trials = home / "environments" / "local-env" / "trials"
    return gather(trials if trials.is_dir() else home, f"experiment {text}")


def _near(text: str, known: Mapping[str, Path]) -> str:
    close = difflib.get_close_matches(text, known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


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
    exports = {}
    for path in _found(folder, results_folder.EXPORT, problems):
        content = _read(path, "export", problems)
        if content is not None:
            exports[_name(path.parent, folder)], fault = checked_export(content)
            _note(problems, path, fault)
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
    return Results(title, folder, shown_searches, shown_trained, exports, problems)


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
    architecture = _architecture(here / results_folder.ARCHITECTURE, problems)
    return Search(_name(here, folder), here, recipe, history, probabilities, cost, architecture, table)


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
