"""What a report is made of, read from a folder of results or the trials of an NNI experiment, also a running one."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import InputError, LatencyTableError, RecipeError
from ..files import read_mapping
from ..latency import LatencyTable
from ..network.architecture import Architecture

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Search:
    """One search, finished or not.

    Attributes:
        name: Where it lies below the results.
        folder: Its folder.
        recipe: Its settings.
        history: A row for each epoch.
        probabilities: Epoch, layer, candidate, probability.
        cost: What it has cost; empty for results of versions before there was `cost.json`.
        architecture: What it found; none while it runs.
        table: Its latency table.
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
    def accuracy(self) -> float:
        """Of the last epoch's decoded network, with the supernet's weights."""
        return float(self.history[-1]["default"])

    @property
    def latency_ms(self) -> float:
        return float(self.history[-1]["latency_ms"])


@dataclass(frozen=True)
class Trained:
    """A network that was retrained.

    Attributes:
        name: Where it lies below the results.
        folder: Its folder.
        card: Its model card.
        architecture: Its architecture.
    """

    name: str
    folder: Path
    card: Mapping[str, Any]
    architecture: Architecture

    @property
    def accuracy(self) -> float:
        """Top-1 on the held-out part."""
        return float(self.card["results"]["validation"]["top1"])

    @property
    def is_baseline(self) -> bool:
        """Whether it was known by its name, not found by a search."""
        return self.architecture.target is None


@dataclass(frozen=True)
class Results:
    """All that a report shows.

    Attributes:
        title: Of the report.
        folder: Where it was found.
        searches: Those with at least one epoch behind them.
        trained: Retrained networks.
        exports: Contents of `export.json` by where they lie below the results.
        problems: Files that could not be read, and why.
    """

    title: str
    folder: Path
    searches: list[Search]
    trained: list[Trained]
    exports: Mapping[str, Mapping[str, Any]]
    problems: list[str] = field(default_factory=list)

    @cached_property
    def targets(self) -> list[str]:
        """Targets of the searches, in the order of their first one."""
        return list(dict.fromkeys(search.target for search in self.searches))

    def table(self, target: str) -> LatencyTable | None:
        """The latency table of a target."""
        return next((s.table for s in self.searches if s.target == target and s.table is not None), None)

    def retrained(self, search: Search) -> Trained | None:
        """The best retraining of what a search found."""
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
        """Of the retrained network where there is one, else with the supernet's weights."""
        trained = self.retrained(search)
        return search.accuracy if trained is None else trained.accuracy

    def best(self, target: str) -> Search | None:
        """The finished search of a target whose network is the most accurate; the faster one of equals."""
        finished = [s for s in self.searches if s.target == target and not s.running]
        return max(finished, key=lambda s: (self.accuracy(s), -s.latency_ms), default=None)


def find_results(text: str) -> Results:
    """Read a folder of results, or what the trials of an NNI experiment on this machine have left.

    Args:
        text: The folder, or the experiment's id.

    Raises:
        InputError: There is neither such a folder nor such an experiment, or nothing of ours is in it.
    """
    folder = Path(text).expanduser()
    if folder.is_dir():
        return gather(folder, folder.resolve().name)
    known = _experiments()
    if text not in known:
        listed = ", ".join(sorted(known)) or "none on this machine"
        raise InputError(f"there is no folder {text} and no NNI experiment of this id (known: {listed})")
    home = known[text]
    trials = home / "environments" / "local-env" / "trials"
    return gather(trials if trials.is_dir() else home, f"experiment {text}")


def _experiments() -> dict[str, Path]:
    """Ids of NNI's experiments on this machine, and their folders."""
    base = Path.home() / "nni-experiments"
    found = (
        {path.name: path for path in base.iterdir() if path.is_dir() and path.name[0] not in "._"}
        if base.is_dir()
        else {}
    )
    try:
        listed = json.loads((base / ".experiment").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return found
    for name, entry in listed.items():
        folder = Path(str(entry.get("logDir") or base)) / name
        if folder.is_dir():
            found[name] = folder
    return {name: path for name, path in found.items() if name != "_latest"}


def gather(folder: Path, title: str) -> Results:
    """Read all searches, retrainings and exports below a folder.

    Raises:
        InputError: There is nothing of ours.
    """
    problems: list[str] = []
    searches = list(_searches(folder, problems))
    trained = list(_trained(folder, problems))
    exports = {}
    for path in sorted(folder.rglob("export.json")):
        content = _read(path, "export", problems)
        if content is not None:
            exports[_name(path.parent, folder)] = content
    if not searches and not trained:
        why = f" ({'; '.join(problems)})" if problems else ""
        raise InputError(
            f"{folder} holds neither searches nor retrained networks of nni-proxyless{why}; give a folder of results "
            "such as results/quickstart. A search shows from its first epoch on"
        )
    return Results(title, folder, searches, trained, exports, problems)


def _searches(folder: Path, problems: list[str]) -> Iterator[Search]:
    for path in sorted(folder.rglob("history.csv")):
        here = path.parent
        recipe = _read(here / "recipe.yml", "recipe", problems)
        if recipe is None or "target" not in recipe:
            continue  # a retraining's
        history = _rows(path)
        if not history:
            continue
        cost = _read(here / "cost.json", "cost", problems) if (here / "cost.json").is_file() else {}
        probabilities = _rows(here / "probabilities.csv") if (here / "probabilities.csv").is_file() else []
        try:
            table = LatencyTable.load(here / "latency_table.yml")
        except LatencyTableError as reason:
            problems.append(str(reason))
            table = None
        architecture = _architecture(here / "architecture.json", problems)
        yield Search(_name(here, folder), here, recipe, history, probabilities, cost or {}, architecture, table)


def _trained(folder: Path, problems: list[str]) -> Iterator[Trained]:
    for path in sorted(folder.rglob("model_card.json")):
        card = _read(path, "model card", problems)
        architecture = _architecture(path.parent / "architecture.json", problems)
        if card is not None and architecture is not None:
            yield Trained(_name(path.parent, folder), path.parent, card, architecture)


def _architecture(path: Path, problems: list[str]) -> Architecture | None:
    if not path.is_file():
        return None
    try:
        return Architecture.load(path)
    except InputError as reason:
        problems.append(str(reason))
        return None


def _read(path: Path, what: str, problems: list[str]) -> dict[str, Any] | None:
    try:
        return read_mapping(path, what, RecipeError)
    except InputError as reason:
        problems.append(str(reason))
        return None


def _rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _name(folder: Path, base: Path) -> str:
    return folder.relative_to(base).as_posix() if folder != base else base.resolve().name
