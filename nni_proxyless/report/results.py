"""The results that a report shows, as records. `gather.py` reads them from files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..decoding.budget import must_keep_budget
from ..files import results_folder
from ..latency import LatencyTable
from ..network.architecture import Architecture
from .checks import Rows, number_of

# Strategy in the architecture file of a random network that `report --baselines` trains.
RANDOM_BASELINE = "random_baseline"


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
        architecture: Network that the search found; `None` if the search has not finished, or its file is damaged.
        table: Latency table of the search; `None` if it cannot be read.
        other_tables: Latency tables of the further targets that have a budget, by name.
        damaged: Whether the file of the architecture is there, but cannot be read.
    """

    name: str
    folder: Path
    recipe: Mapping[str, Any]
    history: Rows
    probabilities: Rows
    cost: Mapping[str, Any]
    architecture: Architecture | None
    table: LatencyTable | None
    other_tables: Mapping[str, LatencyTable] = field(default_factory=dict)
    damaged: bool = False

    @property
    def target(self) -> str:
        return str(self.recipe["target"])

    @property
    def strategy(self) -> str:
        return str(self.recipe["strategy"])

    @property
    def unfinished(self) -> bool:
        """Whether the search has no network yet: it is running, or it was interrupted."""
        return self.architecture is None and not self.damaged

    @property
    def keeps_budget(self) -> bool:
        """Whether the search had to keep its latency budget; see `must_keep_budget`."""
        return must_keep_budget(self.recipe)

    @property
    def stated_budgets(self) -> str:
        """The budgets as the recipe states them. Searches with equal texts look for the same network."""
        budgets = self.recipe.get("budgets")
        listed = budgets.items() if isinstance(budgets, Mapping) else ()
        short = ((key, self.recipe.get(key)) for key in ("budget_ms", "budget_fraction"))
        return "; ".join(sorted(f"{name}: {limit}" for name, limit in (*short, *listed) if limit is not None))

    @property
    def warnings(self) -> list[str]:
        """Warnings of the search about its own result, in the order in which they arose."""
        rows = [(row.get("warnings") or "").split(results_folder.WARNING_SEPARATOR) for row in self.history]
        told = [text for row in rows for text in row if text]
        late = () if self.architecture is None else self.architecture.warnings
        return list(dict.fromkeys([*told, *late]))

    @property
    def accuracy(self) -> float:
        """Held-out accuracy of the network that was found, or decoded last, with the supernet's weights."""
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
        """Top-1 accuracy on the held-out part, between 0 and 1. It chose the epoch, so it is slightly too high."""
        return float(self.card["results"]["validation"]["top1"])

    @property
    def test_accuracy(self) -> float | None:
        """Top-1 accuracy on the data set's test part, between 0 and 1; `None` if it has none."""
        found = self.card["results"].get("test")
        return None if found is None else float(found["top1"])

    @property
    def is_baseline(self) -> bool:
        """Whether the network is a named or random one, rather than the result of a search for a target."""
        return self.architecture.target is None or self.architecture.strategy == RANDOM_BASELINE

    @property
    def kind(self) -> str:
        """Name of a baseline's kind, such as `mobilenet_v2_0.5`."""
        return "random network" if self.architecture.strategy == RANDOM_BASELINE else self.architecture.space_name

    def is_of(self, target: str) -> bool:
        """Whether a baseline is compared with the networks of a target. Random networks are drawn for one target."""
        return self.architecture.target in (None, target)


@dataclass(frozen=True)
class Front:
    """Networks that no other one beats in some quantities, as `decode --front` has written them.

    Attributes:
        name: Path of the file, relative to the results.
        path: Path of the file.
        quantities: Names of the quantities.
        rows: Values of the quantities for each network, and under `table` the name of the latency table, if any.
    """

    name: str
    path: Path
    quantities: tuple[str, ...]
    rows: list[dict[str, Any]]


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
        fronts: Fronts that `decode` has written.
    """

    title: str
    folder: Path
    searches: list[Search]
    trained: list[Trained]
    exports: Mapping[str, Mapping[str, Any]]
    problems: list[str] = field(default_factory=list)
    fronts: list[Front] = field(default_factory=list)

    @cached_property
    def targets(self) -> list[str]:
        """Targets of the searches, in the order in which they first appear."""
        return list(dict.fromkeys(search.target for search in self.searches))

    @property
    def baselines(self) -> list[Trained]:
        return [trained for trained in self.trained if trained.is_baseline]

    def table(self, target: str) -> LatencyTable | None:
        """Return the latency table of a target, or `None` if no search for it has one."""
        own = next((s.table for s in self.searches if s.target == target and s.table is not None), None)
        if own is not None:
            return own
        return next((s.other_tables[target] for s in self.searches if target in s.other_tables), None)

    def retrained(self, search: Search) -> Trained | None:
        """Return the retraining of the network that a search found with the best held-out accuracy, if there is one."""
        found = search.architecture
        if found is None:
            return None
        own = [
            t
            for t in self.trained
            if (t.architecture.target, dict(t.architecture.choices)) == (found.target, dict(found.choices))
            and not t.is_baseline
        ]
        return max(own, key=lambda trained: trained.accuracy, default=None)

    def accuracy(self, search: Search) -> float:
        """Return the held-out accuracy of the retrained network if there is one, else with the supernet's weights."""
        trained = self.retrained(search)
        return search.accuracy if trained is None else trained.accuracy

    def best(self, target: str, stated: str | None = None) -> Search | None:
        """Return the finished search of a target with the best network.

        Retrained networks come first, then a high held-out accuracy, then a low latency. Test accuracies do not choose.

        Args:
            target: Name of the target.
            stated: `Search.stated_budgets` that the search must have; by default any.
        """
        finished = [
            s
            for s in self.searches
            if s.target == target and s.architecture is not None and stated in (None, s.stated_budgets)
        ]
        return max(
            finished,
            key=lambda s: (self.retrained(s) is not None, self.accuracy(s), -s.latency_ms),
            default=None,
        )

    @cached_property
    def chosen(self) -> list[Search]:
        """The best finished search of each target, and of each of its budgets if there are several."""
        pairs = dict.fromkeys((s.target, s.stated_budgets) for s in self.searches if s.architecture is not None)
        targets = [(target, stated) for target in self.targets for of, stated in pairs if of == target]
        found = [self.best(target, stated) for target, stated in targets]
        return [search for search in found if search is not None]
