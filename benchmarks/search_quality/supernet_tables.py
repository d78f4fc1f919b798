"""Tables of how well supernets rank networks, and of the regret that their ranking leaves."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from benchmarks.constants import GROUND_TRUTH_BUDGETS, RANDOM_BEST_OF, TARGETS
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.outcomes import Row
from benchmarks.search_quality.supernet_accuracies import shared_accuracies
from nni_proxyless.decoding.ranking import additive_fit

Supernets = dict[tuple[str, int], list[dict[str, str]]]
DRAWS = 1000
# Variants of supernets, and how many of them are averaged.
AVERAGED = (
    *itertools.product((1, 2, 5, 10), ("random",)),
    *itertools.product((1, 2, 4), ("random, 10 epochs", "random, 5 epochs")),
)


def supernet_table(found: Supernets, truth: GroundTruth) -> str:
    """Rank correlation of each variant with the ground truth, over all networks and over those within each budget."""
    columns = (
        "supernet", "seeds", "Spearman, all networks: mean (range)", "within the budgets: mean",
        "regret of the best by shared weights, points", "training, s", "ranking one, s",
    )  # fmt: skip
    rows = []
    for variant in dict.fromkeys(name for name, _ in found):
        of = [lines for (name, _), lines in sorted(found.items()) if name == variant]
        overall, within, regrets = [], [], []
        for lines in of:
            shared = np.array([shared_accuracies(lines)[name] for name in truth.names])
            overall.append(spearmanr(shared, truth.accuracy).statistic)
            for target, budget in itertools.product(TARGETS, GROUND_TRUTH_BUDGETS):
                feasible = truth.latency_ms[target] <= truth.budget(target, budget)
                within.append(spearmanr(shared[feasible], truth.accuracy[feasible]).statistic)
                own = truth.accuracy[feasible]
                regrets.append(100 * (own.max() - own[shared[feasible].argmax()]))
        rows.append(
            (
                variant,
                len(of),
                f"{np.mean(overall):.2f} ({min(overall):.2f}–{max(overall):.2f})",
                f"{np.mean(within):.2f}",
                f"{np.mean(regrets):.2f}",
                f"{np.median([float(lines[0]['training_seconds']) for lines in of]):.0f}",
                f"{np.median([float(lines[0]['seconds_each']) for lines in of]):.2f}",
            )
        )
    return markdown_table(columns, rows)


def limits_table(
    found: Supernets,
    truth: GroundTruth,
    baselines: Sequence[Row],
    averaged: Sequence[tuple[int, str]] = AVERAGED,
    suffix: str = "",
) -> str:
    """How little regret is possible: all networks ranked by several supernets at once, and by their own trainings.

    The table also counts how often the network that is ranked first is better than random best-of-8 with the same
    budget.

    The last row is what knowledge of every network's true accuracy would leave. The best of hundreds of noisy means is
    partly the luckiest. So true accuracies are drawn from their distribution given the measured means and their noise.

    Args:
        found: The supernets.
        truth: The ground truth.
        baselines: Rows of random search.
        averaged: How many supernets of which variant are averaged.
        suffix: Of the strategy names of random search: `, own weights` for candidates with weights of their own.
    """
    cells = {
        (target, budget): np.flatnonzero(truth.latency_ms[target] <= truth.budget(target, budget))
        for budget, target in itertools.product(GROUND_TRUTH_BUDGETS, TARGETS)
    }
    choices = [dict(enumerate(name.split())) for name in truth.names]
    of_variant: dict[str, list[list[float]]] = defaultdict(list)
    for (variant, _), lines in sorted(found.items()):
        shared = shared_accuracies(lines)
        of_variant[variant].append([shared[name] for name in truth.names])
    by_eight: dict[tuple[str, float], list[float]] = defaultdict(list)
    for row in baselines:
        if row["strategy"] == f"random_best_of_{RANDOM_BEST_OF}{suffix}":
            by_eight[row["target"], float(row["budget"])].append(float(row["accuracy"]))

    def first(values: Any, cell: Any, smoothed: bool) -> float:
        """Accuracy of the network that is ranked first among those of a cell."""
        own = values[cell]
        if smoothed:
            own = np.array(additive_fit([choices[i] for i in cell], own.tolist()))
        return float(truth.accuracy[cell][own.argmax()])

    def scored(rankings: Any, smoothed: bool) -> tuple[str, str]:
        regrets: list[float] = []
        better: dict[float, list[bool]] = {budget: [] for budget in GROUND_TRUTH_BUDGETS}
        for values, ((target, budget), cell) in itertools.product(rankings, cells.items()):
            accuracy = first(values, cell, smoothed)
            regrets.append(100 * (truth.accuracy[cell].max() - accuracy))
            better[budget] += [accuracy > other for other in by_eight[target, budget]]
        return f"{np.mean(regrets):.2f}", _of_ten(better)

    budgets = ", ".join(map(str, GROUND_TRUTH_BUDGETS))
    columns = (
        "ranked by", "Spearman, all networks", "regret of the best, points",
        f"better than random best-of-8, of 10, budget {budgets}", "smoothed: regret", "smoothed: better",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for count, variant in averaged:
        shared_all = np.array(of_variant[variant])
        parts = np.split(shared_all[: len(shared_all) // count * count], len(shared_all) // count)
        means = [part.mean(0) for part in parts]
        spearman = np.mean([spearmanr(mean, truth.accuracy).statistic for mean in means])
        rows.append((f"{count} {variant}", f"{spearman:.2f}", *scored(means, False), *scored(means, True)))
    rows.append(("the trainings themselves", "1", *scored([truth.accuracy], False), *scored([truth.accuracy], True)))
    generator, noise = np.random.default_rng(0), truth.seed_noise**2 / truth.accuracies.shape[1]
    left: list[float] = []
    better: dict[float, list[bool]] = {budget: [] for budget in GROUND_TRUTH_BUDGETS}
    for (target, budget), cell in cells.items():
        of = truth.accuracy[cell]
        known = 1 - noise / of.var()
        for _ in range(DRAWS):
            true = of.mean() + known * (of - of.mean()) + generator.normal(0, np.sqrt(known * noise), len(of))
            left.append(of.max() - of[true.argmax()])
            better[budget] += [of[true.argmax()] > other for other in by_eight[target, budget]]
    rows.append(("their true accuracies", "", f"{100 * np.mean(left):.2f}", _of_ten(better), "", ""))
    return markdown_table(columns, rows)


def _of_ten(better: dict[float, list[bool]]) -> str:
    return ", ".join(f"{10 * np.mean(of):.1f}" for of in better.values())
