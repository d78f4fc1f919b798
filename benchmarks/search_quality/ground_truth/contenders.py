"""The networks whose accuracy matters when searches are judged: they are trained with more seeds than the others."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np

from benchmarks.constants import FINALISTS, GROUND_TRUTH_BUDGETS, GROUND_TRUTH_SEEDS, SEARCH_QUALITY_RESULTS
from benchmarks.results_csv import read_rows
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.outcomes import random_rows, selected_rows

SEEDS_OF_RANDOM = 10
BEST = 30  # networks of each target and budget
RESULTS = tuple(SEARCH_QUALITY_RESULTS / f"{name}.csv" for name in ("search_quality", "search_tried", "one_for_all"))


def contenders(
    truth: GroundTruth, best: int = BEST, results: tuple[Path, ...] = RESULTS, random_seeds: int = SEEDS_OF_RANDOM
) -> list[str]:
    """Networks that are among the best within a budget, or that a recorded search or random search has exported.

    The best are chosen by the seeds that every network has. So further trainings do not change the choice, and an
    interrupted run continues with the same networks. Those that were exported are trained whatever their accuracy, so
    their means are not biased by the choice.

    Args:
        truth: The ground truth.
        best: Number of networks of each target and budget.
        results: Files of recorded searches, with a column `architecture`.
        random_seeds: Number of seeds of random search.

    Returns:
        `Architecture.candidate_names` of each; those that were exported most often come first.
    """
    first = truth.accuracies[:, :GROUND_TRUTH_SEEDS].mean(1)
    recorded = [row for path in results for row in read_rows(path)]
    names = Counter(row["architecture"] for row in recorded)
    # What the searches whose finalists are recorded would export with the final selection of today.
    searches = [row for row in recorded if "strategy" in row]
    names.update(row["architecture"] for row in selected_rows(searches, (FINALISTS,), truth))
    names.update(row["architecture"] for row in random_rows(random_seeds, truth) if "one" not in row["strategy"])
    for target, part in itertools.product(truth.latency_ms, GROUND_TRUTH_BUDGETS):
        within = truth.within(target, truth.budget(target, part))
        order = within[np.argsort(-first[within], kind="stable")]
        names.update(truth.names[i] for i in order[:best])
    return sorted(names, key=lambda name: (-names[name], name))
