"""Accuracies of all networks of the small space, and the place among them of a network that a search found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.constants import GROUND_TRUTH, TARGETS
from benchmarks.results_csv import read_rows
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec

SPACE = GROUND_TRUTH / "space.yml"
NETWORKS_CSV = GROUND_TRUTH / "networks.csv"
TABLES = {name: GROUND_TRUTH / "tables" / f"{name}.yml" for name in TARGETS}
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """The place of a network among all networks within a budget.

    Attributes:
        accuracy: Accuracy of the network, mean over the seeds, between 0 and 1.
        best_accuracy: Accuracy of the best network within the budget.
        percentile: Percentage of the networks within the budget that are worse; equal ones count half.
        within_budget: Whether the network is within the budget.
    """

    accuracy: float
    best_accuracy: float
    percentile: float
    within_budget: bool

    @property
    def regret(self) -> float:
        """Accuracy that the network lacks to the best one within the budget."""
        return self.best_accuracy - self.accuracy


class GroundTruth:
    """All networks that have been trained with every seed.

    Attributes:
        spec: The space.
        names: `Architecture.candidate_names` of each network.
        accuracies: Test accuracy of each network and seed, shape (networks, seeds), between 0 and 1.
        latency_ms: Target to the latency of each network by the target's table, shape (networks,).
        multiply_adds: Multiply-adds of each network, shape (networks,).
        parameters: Number of parameters of each network, shape (networks,).
    """

    def __init__(self, path: Path = NETWORKS_CSV) -> None:
        self.spec = SpaceSpec.from_yaml(str(SPACE))
        found: dict[str, dict[int, float]] = defaultdict(dict)
        for row in read_rows(path):
            found[row["architecture"]][int(row["seed"])] = float(row["test_accuracy"])
        seeds = sorted({seed for of in found.values() for seed in of})
        self.names = sorted(name for name, of in found.items() if len(of) == len(seeds))
        self.accuracies: Floats = np.array([[found[name][seed] for seed in seeds] for name in self.names])
        architectures = [self.architecture(name) for name in self.names]
        self.multiply_adds: Floats = np.array([a.multiply_adds for a in architectures], dtype=np.float64)
        self.parameters: Floats = np.array([a.parameters for a in architectures], dtype=np.float64)
        self.latency_ms: dict[str, Floats] = {}
        for target, table in TABLES.items():
            if table.exists():
                costs = LatencyTable.load(table).costs(self.spec)
                self.latency_ms[target] = np.array([costs.of(a.choices) for a in architectures])

    @property
    def accuracy(self) -> Floats:
        """Accuracy of each network, mean over the seeds, shape (networks,)."""
        mean: Floats = self.accuracies.mean(1)
        return mean

    @property
    def seed_noise(self) -> float:
        """Standard deviation of one training's accuracy, from the differences between seeds."""
        return float(np.sqrt(self.accuracies.var(1, ddof=1).mean()))

    def architecture(self, candidate_names: str) -> Architecture:
        labels = (layer.label for layer in self.spec.layers)
        return Architecture.of_space(self.spec, dict(zip(labels, candidate_names.split(), strict=True)))

    def score(self, candidate_names: str, target: str, budget_ms: float) -> Score:
        """The place of a network among those within the budget.

        Raises:
            KeyError: The network has not been trained yet.
        """
        index = {name: i for i, name in enumerate(self.names)}[candidate_names]
        feasible = self.latency_ms[target] <= budget_ms * (1 + 1e-9)
        others, own = self.accuracy[feasible], self.accuracy[index]
        below = (others < own).mean() + 0.5 * (others == own).mean()
        return Score(float(own), float(others.max()), 100 * float(below), bool(feasible[index]))

    def budget(self, target: str, part: float) -> float:
        """The latency in milliseconds that this fraction of all networks does not exceed."""
        return float(np.quantile(self.latency_ms[target], part))
