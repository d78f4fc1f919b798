"""The goals of the searches, and whether they were reached, from the recorded searches and the ground truth."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.constants import GROUND_TRUTH_BUDGETS, SEEDS, TARGETS
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.ground_truth.oracle import budgets, picked_regret, picks
from benchmarks.search_quality.outcomes import Row
from benchmarks.search_quality.summary import Groups, against_random, column, paired, search_of
from benchmarks.search_quality.supernet_accuracies import shared_accuracies
from benchmarks.search_quality.supernet_tables import Supernets, true_spearman

RIVALS = {"nni_proxyless_builtin": "NNI's `Proxyless`", "gumbel_darts": "NNI's `GumbelDARTS`"}
_LARGEST_REGRET = 0.2  # points
_LARGEST_ORACLE = 0.1
_FASTER = 1.8
_SPEARMAN = 0.86
_WORSE = 2  # of 60 searches
_PERCENTILE = 90
_WINS = 0.8  # of the searches at each budget
_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Goal:
    """A goal, what was measured, and whether it was reached."""

    text: str
    result: str
    reached: bool


def goals_table(goals: Sequence[Goal]) -> str:
    """All goals."""
    rows = [(goal.text, goal.result, "reached" if goal.reached else "**missed**") for goal in goals]
    return markdown_table(("goal", "result", "verdict"), rows)


def missed_table(goals: Sequence[Goal]) -> str:
    """The goals that were missed."""
    return markdown_table(("missed goal", "result"), [(goal.text, goal.result) for goal in goals if not goal.reached])


def search_goals(
    groups: Groups, truth: GroundTruth, supernets: Supernets, selection: str, suffix: str = ""
) -> list[Goal]:
    """The goals of the default search.

    Args:
        groups: Rows of each strategy and final selection.
        truth: The ground truth.
        supernets: Accuracies of all networks with shared weights.
        selection: Suffix of the rows' names for the default final selection.
        suffix: `, own weights` for candidates with weights of their own.
    """
    ours = groups[f"proxyless{suffix}{selection}"]
    regret = 100 * column(ours, "regret").mean()
    within = sum(row["within_budget"] == "True" for row in ours)
    percentile = float(np.median(column(ours, "percentile")))
    goals = [
        Goal("All exported networks are within their budgets.", f"{within} of {len(ours)}", within == len(ours)),
        Goal(f"The median percentile is at least {_PERCENTILE}.", f"{percentile:.1f}", percentile >= _PERCENTILE),
        Goal(
            f"The mean regret is at most {_LARGEST_REGRET} points.",
            f"{regret:.2f} ± {_error_of_truth(ours, truth):.2f}",
            regret <= _LARGEST_REGRET,
        ),
        _later_goal(ours, truth),
        *_against_random_goals(groups, ours, f"proxyless{suffix}{selection}", suffix),
    ]
    for family, name in RIVALS.items():
        goals += _rival_goals(name, groups[f"{family}{suffix}, likeliest"], ours, truth)
    return [*goals, *([] if suffix else _ground_truth_goals(truth, supernets))]


def _later_goal(ours: list[Row], truth: GroundTruth) -> Goal:
    """The regret with the seeds that chose no setting of the final selection."""
    later = [row for row in ours if int(row["seed"]) >= SEEDS]
    regret = 100 * column(later, "regret").mean()
    return Goal(
        f"The mean regret is at most 0.2 points with seeds from {SEEDS} on. No weight was chosen with these seeds.",
        f"{regret:.2f} ± {_error_of_truth(later, truth):.2f}",
        regret <= _LARGEST_REGRET,
    )


def _against_random_goals(groups: Groups, ours: list[Row], name: str, suffix: str) -> list[Goal]:
    regret = 100 * column(ours, "regret").mean()
    many = [f"random_best_of_64{end}{suffix}" for end in ("", ", smoothed", ", as ours")]
    best = min(100 * column(groups[of], "regret").mean() for of in many)
    pairs = [against_random(groups)[name, budget] for budget in GROUND_TRUTH_BUDGETS]
    searches, worse = sum(map(sum, pairs)), sum(of[2] for of in pairs)
    wins = ", ".join(str(of[0]) for of in pairs)
    ties = ", ".join(str(of[1]) for of in pairs)
    return [
        Goal(
            "The regret is at most half of that of the best random search with as many weight steps.",
            f"{regret:.2f} against {best:.2f}",
            bool(2 * regret <= best),
        ),
        Goal(
            f"At most {_WORSE} of 60 searches are worse than random best-of-8.",
            f"{worse} of {searches}",
            bool(60 * worse <= _WORSE * searches),
        ),
        Goal(
            "At every budget, at least 8 of 10 searches are better than random best-of-8.",
            f"{wins} of {sum(pairs[0])} ({ties} equal)",
            all(of[0] >= _WINS * sum(of) for of in pairs),
        ),
    ]


def _rival_goals(name: str, rival: list[Row], ours: list[Row], truth: GroundTruth) -> list[Goal]:
    """Goals against a strategy of NNI with its own choice of the network, and the same seeds."""
    found = paired(ours, rival, truth)
    seconds = [float(np.median([float(r["seconds"]) for r in of if r["seed"] == "0"])) for of in (ours, rival)]
    faster = seconds[1] / seconds[0]
    p = found.p_value if found.p_value is not None else 1.0
    return [
        Goal(
            f"With the same seeds, the regret is at most half of that of {name}.",
            f"{found.first:.2f} against {found.own:.2f}",
            bool(2 * found.first <= found.own),
        ),
        Goal(
            f"The regret is smaller than that of {name} (p < {_SIGNIFICANT}).",
            f"{found.difference:+.2f} points, p = {p:.3f}",
            bool(found.difference > 0 and p < _SIGNIFICANT),
        ),
        Goal(
            f"A search is {_FASTER} times as fast as {name}.",
            f"{faster:.1f} times",
            bool(faster >= _FASTER),
        ),
    ]


def _ground_truth_goals(truth: GroundTruth, supernets: Supernets) -> list[Goal]:
    within = list(budgets(truth).values())
    every = np.arange(len(truth.names))
    chosen: dict[str, Callable[[], float]] = {
        "mean": lambda: picked_regret(truth.estimates, within, picks(truth.accuracy, within)).mean(),
        "estimate": lambda: picked_regret(truth.estimates, within, picks(truth.estimates.accuracy, within)).mean(),
    }
    of_seeds = [
        true_spearman(np.array([shared_accuracies(lines)[name] for name in truth.names]), truth.estimates, every)
        for (variant, _), lines in supernets.items()
        if variant == "random"
    ]
    spearman = float(np.mean(of_seeds))
    return [
        *(
            Goal(
                f"Picking networks by their {name} in the ground truth has a regret of at most "
                f"{_LARGEST_ORACLE} points.",
                f"{regret():.2f}",
                regret() <= _LARGEST_ORACLE,
            )
            for name, regret in chosen.items()
        ),
        Goal(
            f"The ranking of all networks by one supernet has a Spearman correlation of {_SPEARMAN}.",
            f"{spearman:.2f}",
            spearman >= _SPEARMAN,
        ),
    ]


def _error_of_truth(rows: list[Row], truth: GroundTruth) -> float:
    """Standard deviation of the mean regret that the ground truth leaves, in points."""
    best = {
        (target, budget): truth.estimates.best(truth.within(target, truth.budget(target, budget)))
        for target, budget in itertools.product(TARGETS, GROUND_TRUTH_BUDGETS)
    }
    lost = [
        best[search_of(row)[0], float(row["budget"])] - truth.estimates.draws[:, truth.index(row["architecture"])]
        for row in rows
    ]
    return float(np.mean(lost, axis=0).std())
