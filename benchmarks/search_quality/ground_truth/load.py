"""Accuracies of all networks of the small space, and the place among them of a network that a search found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.constants import GROUND_TRUTH, GROUND_TRUTH_SEEDS, TARGETS
from benchmarks.results_csv import read_rows
from benchmarks.search_quality.ground_truth.estimates import Estimates, Trainings, estimate
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.operators import total_activations
from nni_proxyless.network.space_spec import SpaceSpec

SPACE = GROUND_TRUTH / "space.yml"
NETWORKS_CSV = GROUND_TRUTH / "networks.csv"
TABLES = {name: GROUND_TRUTH / "tables" / f"{name}.yml" for name in TARGETS}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """The place of a network among all networks within a budget.

    The accuracies are estimates of the true ones (`estimates.py`). So the best one is not the luckiest one.

    Attributes:
        accuracy: Expected true accuracy of the network, between 0 and 1.
        best_accuracy: Expected true accuracy of the best network within the budget, whichever that is.
        percentile: Percentage of the networks within the budget that are worse; equal ones count half.
        within_budget: Whether the network is within the budget.
    """

    accuracy: float
    best_accuracy: float
    percentile: float
    within_budget: bool

    @property
    def regret(self) -> float:
        """Expected accuracy that the network lacks to the best one within the budget."""
        return self.best_accuracy - self.accuracy


class GroundTruth:
    """All networks that have been trained with the first seeds, and their other trainings.

    Attributes:
        spec: The space.
        names: `Architecture.candidate_names` of each network.
        accuracies: Test accuracy of each network and seed, shape (networks, seeds), between 0 and 1. Networks that
            matter more have more trainings. A training that was not run is not a number.
        latency_ms: Target to the latency of each network by the target's table, shape (networks,).
        multiply_adds: Multiply-adds of each network, shape (networks,).
        activations: Number of values that pass a non-linearity in each network, shape (networks,).
        parameters: Number of parameters of each network, shape (networks,).
    """

    def __init__(self, path: Path = NETWORKS_CSV) -> None:
        self.spec = SpaceSpec.from_yaml(str(SPACE))
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for row in read_rows(path):
            found[row["architecture"]][int(row["seed"])] = float(row["test_accuracy"])
        first = set(range(GROUND_TRUTH_SEEDS))
        self.names = sorted(name for name, of in found.items() if first <= set(of))
        seeds = sorted(first.union(*(found[name] for name in self.names)))
        self.accuracies: Floats = np.array([[found[name].get(seed, np.nan) for seed in seeds] for name in self.names])
        architectures = [self.architecture(name) for name in self.names]
        self.multiply_adds: Floats = np.array([a.multiply_adds for a in architectures], dtype=np.float64)
        self.activations: Floats = np.array([total_activations(a.operators()) for a in architectures], dtype=np.float64)
        self.parameters: Floats = np.array([a.parameters for a in architectures], dtype=np.float64)
        self.latency_ms: dict[str, Floats] = {}
        for target, table in TABLES.items():
            if table.exists():
                costs = LatencyTable.load(table).costs(self.spec)
                self.latency_ms[target] = np.array([costs.of(a.choices) for a in architectures])
        self._index = {name: i for i, name in enumerate(self.names)}

    @property
    def trainings(self) -> npt.NDArray[np.int64]:
        """Number of trainings of each network, shape (networks,)."""
        counts: npt.NDArray[np.int64] = np.isfinite(self.accuracies).sum(1)
        return counts

    @property
    def accuracy(self) -> Floats:
        """Accuracy of each network, mean over its trainings, shape (networks,)."""
        mean: Floats = np.nanmean(self.accuracies, 1)
        return mean

    @property
    def standard_error(self) -> Floats:
        """Standard error of `accuracy`, shape (networks,)."""
        error: Floats = self.seed_noise / np.sqrt(self.trainings)
        return error

    @property
    def seed_noise(self) -> float:
        """Standard deviation of one training's accuracy, pooled over the networks."""
        squares = np.nansum((self.accuracies - self.accuracy[:, None]) ** 2)
        return float(np.sqrt(squares / (self.trainings - 1).sum()))

    def estimated(self, seeds: slice = slice(None)) -> Estimates:
        """True accuracies in percentage points, estimated from the trainings with some of the seeds.

        The noise of a single training is always taken from all of them.
        """
        of = 100 * self.accuracies[:, seeds]
        counts = np.isfinite(of).sum(1)
        freedom = int((self.trainings - 1).sum())
        choices = [name.split() for name in self.names]
        squares = freedom * (100 * self.seed_noise) ** 2
        return estimate(Trainings(choices, np.nanmean(of, 1), counts.astype(np.float64), squares, freedom))

    @cached_property
    def estimates(self) -> Estimates:
        """True accuracies in percentage points, estimated from all trainings."""
        return self.estimated()

    def architecture(self, candidate_names: str) -> Architecture:
        labels = (layer.label for layer in self.spec.layers)
        return Architecture.of_space(self.spec, dict(zip(labels, candidate_names.split(), strict=True)))

    def index(self, candidate_names: str) -> int:
        """Position of a network in `names`.

        Raises:
            KeyError: The network has not been trained yet.
        """
        return self._index[candidate_names]

    def within(self, target: str, budget_ms: float) -> npt.NDArray[np.intp]:
        """Positions of the networks within a budget."""
        return np.flatnonzero(self.latency_ms[target] <= budget_ms * (1 + 1e-9))

    def score(self, candidate_names: str, target: str, budget_ms: float) -> Score:
        """The place of a network among those within the budget.

        Raises:
            KeyError: The network has not been trained yet.
        """
        index = self.index(candidate_names)
        key = target, budget_ms
        if key not in self._best:
            within = self.within(target, budget_ms)
            self._best[key] = within, float(self.estimates.best(within).mean()) / 100
        within, best = self._best[key]
        accuracies = self._estimated_accuracy
        others, own = accuracies[within], accuracies[index]
        below = (others < own).mean() + 0.5 * (others == own).mean()
        return Score(float(own), best, 100 * float(below), bool(index in within))

    def budget(self, target: str, part: float) -> float:
        """The latency in milliseconds that this fraction of all networks does not exceed."""
        return float(np.quantile(self.latency_ms[target], part))

    @cached_property
    def _best(self) -> dict[tuple[str, float], tuple[npt.NDArray[np.intp], float]]:
        """Networks within the budgets that were asked for, and the accuracy of the best one."""
        return {}

    @cached_property
    def _estimated_accuracy(self) -> Floats:
        accuracy: Floats = self.estimates.accuracy / 100
        return accuracy
