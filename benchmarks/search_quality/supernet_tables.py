"""Tables of how well supernets rank networks, and of the regret that their ranking leaves."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import rankdata

from benchmarks.constants import GROUND_TRUTH_BUDGETS, RANDOM_BEST_OF, TARGETS
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.estimates import Estimates
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.outcomes import Row
from benchmarks.search_quality.supernet_accuracies import shared_accuracies
from nni_proxyless.decoding.ranking import additive_fit, rank_values

Supernets = dict[tuple[str, int], list[dict[str, str]]]
Way = Literal["plain", "smoothed", "final selection"]
DRAWS = 40  # true accuracies that values are correlated with
# Variants of supernets, and how many of them are averaged.
AVERAGED = (
    *itertools.product((1, 2, 5, 10), ("random",)),
    *itertools.product((1, 2, 4), ("random, 10 epochs", "random, 5 epochs")),
)


def true_spearman(values: Any, estimates: Estimates, within: Any) -> float:
    """Mean rank correlation of values with true accuracies drawn from their distribution.

    Args:
        values: One value for each network.
        estimates: The distribution of the true accuracies.
        within: Positions of the networks to be compared.
    """
    ranks = rankdata(values[within])
    of_draws = rankdata(estimates.draws[:: len(estimates.draws) // DRAWS, within], axis=1)
    ranks, of_draws = ranks - ranks.mean(), of_draws - of_draws.mean(1, keepdims=True)
    norms = np.sqrt((ranks**2).sum() * (of_draws**2).sum(1))
    return float((of_draws @ ranks / norms).mean())


def regret_of(estimates: Estimates, within: Any) -> Any:
    """Expected regret of each network within a budget, in points."""
    return estimates.best(within).mean() - estimates.accuracy[within]


def supernet_table(found: Supernets, truth: GroundTruth) -> str:
    """Rank correlation of each variant with the ground truth, over all networks and over those within each budget."""
    columns = (
        "supernet", "seeds", "Spearman, all networks: mean (range)", "within the budgets: mean",
        "regret of the best by shared weights, points", "training, s", "ranking one, s",
    )  # fmt: skip
    rows, every = [], np.arange(len(truth.names))
    for variant in dict.fromkeys(name for name, _ in found):
        of = [lines for (name, _), lines in sorted(found.items()) if name == variant]
        overall, within, regrets = [], [], []
        for lines in of:
            shared = np.array([shared_accuracies(lines)[name] for name in truth.names])
            overall.append(true_spearman(shared, truth.estimates, every))
            for target, budget in itertools.product(TARGETS, GROUND_TRUTH_BUDGETS):
                feasible = truth.within(target, truth.budget(target, budget))
                within.append(true_spearman(shared, truth.estimates, feasible))
                regrets.append(float(regret_of(truth.estimates, feasible)[shared[feasible].argmax()]))
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
    budget. The last row is what knowledge of every network's true accuracy would leave.

    Args:
        found: The supernets.
        truth: The ground truth.
        baselines: Rows of random search.
        averaged: How many supernets of which variant are averaged.
        suffix: Of the strategy names of random search: `, own weights` for candidates with weights of their own.
    """
    cells = {
        (target, budget): truth.within(target, truth.budget(target, budget))
        for budget, target in itertools.product(GROUND_TRUTH_BUDGETS, TARGETS)
    }
    estimates, every = truth.estimates, np.arange(len(truth.names))
    lost = {key: regret_of(estimates, cell) for key, cell in cells.items()}
    choices = [dict(enumerate(name.split())) for name in truth.names]
    of_variant: dict[str, list[list[float]]] = defaultdict(list)
    for (variant, _), lines in sorted(found.items()):
        shared = shared_accuracies(lines)
        of_variant[variant].append([shared[name] for name in truth.names])
    by_eight: dict[tuple[str, float], list[int]] = defaultdict(list)
    for row in baselines:
        if row["strategy"] == f"random_best_of_{RANDOM_BEST_OF}{suffix}":
            by_eight[row["target"], float(row["budget"])].append(truth.index(row["architecture"]))

    def first(values: Any, cell: Any, how: Way) -> int:
        """Number, within a cell, of the network that is ranked first."""
        own, inside = values[cell].tolist(), [choices[i] for i in cell]
        if how == "smoothed":
            own = additive_fit(inside, own)
        elif how == "final selection":  # all networks are equally likely
            sizes = [of[cell].tolist() for of in (truth.multiply_adds, truth.activations)]
            own = rank_values(inside, own, [0.0] * len(own), *sizes)
        return int(np.argmax(own))

    def scored(rankings: Any, how: Way) -> tuple[str, str]:
        regrets: list[float] = []
        better: dict[float, list[Any]] = {budget: [] for budget in GROUND_TRUTH_BUDGETS}
        for values, ((target, budget), cell) in itertools.product(rankings, cells.items()):
            one = first(values, cell, how)
            regrets.append(lost[target, budget][one])
            own = estimates.accuracy[cell[one]]
            better[budget] += [own > estimates.accuracy[other] for other in by_eight[target, budget]]
        return f"{np.mean(regrets):.2f}", _of_ten(better)

    def all_ways(rankings: Any) -> list[str]:
        return [cell for how in get_args(Way) for cell in scored(rankings, how)]

    budgets = ", ".join(map(str, GROUND_TRUTH_BUDGETS))
    columns = (
        "ranked by", "Spearman, all networks", "regret of the best, points",
        f"better than random best-of-8, of 10, budget {budgets}", "smoothed: regret", "smoothed: better",
        "as the final selection: regret", "as the final selection: better",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for count, variant in averaged:
        shared_all = np.array(of_variant[variant])
        parts = np.split(shared_all[: len(shared_all) // count * count], len(shared_all) // count)
        means = [part.mean(0) for part in parts]
        spearman = np.mean([true_spearman(mean, estimates, every) for mean in means])
        rows.append((f"{count} {variant}", f"{spearman:.2f}", *all_ways(means)))
    for name, values in {"means of their trainings": truth.accuracy, "estimates from them": estimates.accuracy}.items():
        spearman = true_spearman(values, estimates, every)
        rows.append((name, f"{spearman:.2f}", *all_ways([values])))
    better: dict[float, list[Any]] = {budget: [] for budget in GROUND_TRUTH_BUDGETS}
    for (target, budget), cell in cells.items():
        best = estimates.best(cell)
        better[budget] += [(best > estimates.draws[:, other]).mean() for other in by_eight[target, budget]]
    rows.append(("true accuracies", "1", "0.00", _of_ten(better), "", "", "", ""))
    return markdown_table(columns, rows)


def _of_ten(better: dict[float, list[Any]]) -> str:
    return ", ".join(f"{10 * np.mean(of):.1f}" for of in better.values())
