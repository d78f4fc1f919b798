"""Tables and a picture of how good the networks are that searches found."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.constants import GROUND_TRUTH_BUDGETS, RANDOM_BEST_OF
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.outcomes import Row
from benchmarks.search_quality.settings import BASE, OWN_SUFFIX, TRIED_ON_BASE

Groups = dict[str, list[Row]]
_RANDOM_NAME = f"random_best_of_{RANDOM_BEST_OF}"
# Strategies, and baselines with their final selection, to what readers call them.
NAMES = {
    "proxyless": "ProxylessNAS (ours)",
    "proxyless_full": "ours, `full` after each weight step",
    "proxyless_two_path": "ours, `two_path`",
    "proxyless_reinforce": "ours, `reinforce`",
    "nni_proxyless_builtin": "NNI `Proxyless`",
    "gumbel_darts": "NNI `GumbelDARTS`",
    "darts": "NNI `DARTS`",
    "enas": "NNI `ENAS`",
}
RANDOM = {
    "random_best_of_64, as ours": ("random search, 64 networks", "as ours"),
    "random_best_of_64, smoothed": ("random search, 64 networks", "smoothed accuracies"),
    "random_best_of_64": ("random search, 64 networks", "accuracies"),
    "random_best_of_8": ("random search, 8 networks", "accuracies"),
    "random_one": ("one random network", "none"),
}


def by_strategy(rows: Iterable[Row]) -> Groups:
    """Strategy to its rows."""
    groups: Groups = defaultdict(list)
    for row in rows:
        groups[row["strategy"]].append(row)
    return dict(groups)


def strategy_table(groups: Groups) -> str:
    """Percentile, regret and cost of each strategy, the smallest mean regret first."""
    per_epoch = max(int(row["weight_steps"]) / epochs(row) for of in groups.values() for row in of if epochs(row))
    columns = (
        "strategy", "searches", "percentile: median (quartiles)", "regret, points: mean (worst)", "within budget",
        "weight + architecture steps", "seconds",
    )  # fmt: skip
    rows = []
    for name in sorted(groups, key=lambda n: column(groups[n], "regret").mean()):
        of = groups[name]
        within = np.mean([row["within_budget"] == "True" for row in of])
        seconds = f"{np.median(column(of, 'seconds')):.0f}"
        rows.append(
            (name, len(of), percentile_cell(of), regret_cell(of), f"{100 * within:.0f} %", steps_cell(of, per_epoch),
             seconds)
        )  # fmt: skip
    return markdown_table(columns, rows)


def percentile_cell(rows: list[Row]) -> str:
    """Median and quartiles."""
    low, middle, high = np.percentile(column(rows, "percentile"), [25, 50, 75])
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"


def regret_cell(rows: list[Row]) -> str:
    """Mean and worst regret, in points."""
    regret = 100 * column(rows, "regret")
    return f"{regret.mean():.2f} ({regret.max():.2f})"


def steps_cell(rows: list[Row], per_epoch: float) -> str:
    """Weight and architecture steps; searches of NNI's strategies did not record the latter."""
    weight_steps = round(per_epoch * epochs(rows[0]))  # the steps of a warm-up that another search trained count too
    return " + ".join(filter(None, (str(weight_steps), rows[0]["architecture_steps"])))


def against_random(groups: Groups) -> dict[tuple[str, float], tuple[int, int, int]]:
    """In how many searches a strategy is better than, equal to, and worse than random best-of-8.

    The compared searches have the same seed, target and budget, and the same kind of weights, entangled or not.

    Returns:
        Strategy and budget to the three numbers.
    """
    random_of = {
        (is_entangled(row), search_of(row)): float(row["accuracy"])
        for name in (_RANDOM_NAME, _RANDOM_NAME + OWN_SUFFIX)
        for row in groups.get(name, [])
    }
    found = {}
    for name, budget in itertools.product(sorted(groups), GROUND_TRUTH_BUDGETS):
        pairs = [
            (float(row["accuracy"]), random_of[same])
            for row in groups[name]
            if float(row["budget"]) == budget and (same := (is_entangled(row), search_of(row))) in random_of
        ]
        if pairs and not name.startswith(_RANDOM_NAME):
            better, worse = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
            found[name, budget] = (better, len(pairs) - better - worse, worse)
    return found


def against_random_table(groups: Groups) -> str:
    """`against_random` as a table."""
    rows = ((name, budget, *numbers) for (name, budget), numbers in against_random(groups).items())
    return markdown_table(("strategy", "budget", "better than random best-of-8", "equal", "worse"), rows)


def against_base_table(groups: Groups, counts: Iterable[int]) -> str:
    """Changes tried on `BASE`: regret with the change, regret of `BASE` in these searches, difference ± its error."""
    ends = ["likeliest" if count == 1 else f"{count} finalists" for count in counts if count > 0]
    base = {end: {search_of(r): 100 * float(r["regret"]) for r in groups.get(f"{BASE}, {end}", [])} for end in ends}
    rows = []
    for name in TRIED_ON_BASE:
        cells, searches = [], 0
        for end in ends:
            tried = {search_of(row): 100 * float(row["regret"]) for row in groups.get(f"{name}, {end}", [])}
            both = [(tried[key], base[end][key]) for key in tried if key in base[end]]
            if len(both) > 1:
                searches = len(both)
                own, plain = np.array(both).T
                error = (own - plain).std(ddof=1) / np.sqrt(len(both))
                cells.append(f"{own.mean():.2f}, {plain.mean():.2f}, {(own - plain).mean():+.2f} ± {error:.2f}")
        if cells:
            rows.append((name, searches, *cells))
    return markdown_table(("tried", "searches", *(f"{end}: regret, with a {BASE}, difference" for end in ends)), rows)


@dataclass(frozen=True)
class Pairs:
    """Two selections in the searches that both have.

    Attributes:
        searches: Number of these searches.
        seeds: Number of their seeds.
        own: Mean regret of the second selection, in points.
        first: Mean regret of the first.
        difference: Mean difference: second minus first.
        error: Standard error of the difference from its spread over the seeds; None with one seed.
        truth_error: The same from the noise of the ground truth; None without a ground truth.
        p_value: Of a t-test with both errors, whose degrees of freedom are those of the seeds; None with one seed.
        outcomes: Number of searches in which the second is better, equal, worse.
    """

    searches: int
    seeds: int
    own: float
    first: float
    difference: float
    error: float | None
    truth_error: float | None
    p_value: float | None
    outcomes: tuple[int, int, int]


def paired(first_rows: list[Row], rows: list[Row], truth: GroundTruth | None = None) -> Pairs:
    """Compare two selections by seed.

    The searches of one seed share data and paths, so the standard error comes from the mean difference of each seed: n
    seeds are n observations. The accuracies of the networks are known up to the noise of the ground truth, which all
    seeds share.
    """
    from scipy import stats

    mine, base = ({search_of(row): row for row in of} for of in (rows, first_rows))
    common = sorted(set(base) & set(mine))
    own, first = (100 * column([of[key] for key in common], "regret") for of in (mine, base))
    seeds = sorted({seed for _, _, seed in common})
    of_seed = np.array([(own - first)[[key[2] == seed for key in common]].mean() for seed in seeds])
    error = float(stats.sem(of_seed)) if len(seeds) > 1 else None
    of_truth = None
    if truth is not None:
        draws = truth.estimates.draws
        chosen = [[truth.index(of[key]["architecture"]) for key in common] for of in (base, mine)]
        of_truth = float((draws[:, chosen[0]].mean(1) - draws[:, chosen[1]].mean(1)).std())
    p_value = None
    if error is not None and (both := float(np.hypot(error, of_truth or 0.0))) > 0:
        p_value = float(2 * stats.t.sf(abs(of_seed.mean()) / both, len(seeds) - 1))
    better, worse = int((own < first).sum()), int((own > first).sum())
    return Pairs(
        len(common), len(seeds), float(own.mean()), float(first.mean()), float((own - first).mean()), error, of_truth,
        p_value, (better, len(common) - better - worse, worse),
    )  # fmt: skip


def paired_table(selections: Mapping[str, list[Row]], truth: GroundTruth | None = None) -> str:
    """Regret of several selections in the searches that each has in common with the first, and the difference to it.

    Args:
        selections: Name of a selection to its rows; the first one is what the others are compared with.
        truth: The ground truth, whose noise then has a column and counts in the p-value.
    """
    base_name = next(iter(selections))
    rows = []
    for name in list(selections)[1:]:
        found = paired(selections[base_name], selections[name], truth)
        error = f" ± {found.error:.2f}" if found.error is not None else ""
        noise = () if found.truth_error is None else (f"{found.truth_error:.2f}",)
        rows.append(
            (name, found.searches, found.seeds, f"{found.own:.2f}", f"{found.first:.2f}",
             f"{found.difference:+.2f}{error}", *noise, _p_cell(found.p_value), ", ".join(map(str, found.outcomes)))
        )  # fmt: skip
    columns = (
        f"compared with {base_name}", "searches", "seeds", "regret", f"regret of {base_name}",
        "difference ± standard error", *(("error from the ground truth",) if truth is not None else ()), "p",
        "better, equal, worse",
    )  # fmt: skip
    return markdown_table(columns, rows)


def _p_cell(p_value: float | None) -> str:
    if p_value is None:
        return ""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def shown_name(name: str) -> str:
    """Return what readers call the rows of a strategy or baseline, such as `darts, likeliest`."""
    entangled = name.replace(OWN_SUFFIX, "")
    family, _, selection = entangled.partition(", ")
    shown = NAMES.get(family, family).replace("`", "")
    if entangled in RANDOM:
        shown, selection = RANDOM[entangled]
    words = [shown]
    if selection == "likeliest":
        words.append("no final selection")
    elif selection not in ("", "none"):
        words.append(f"final selection: {selection}")
    if entangled != name:
        words.append("separate weights")
    return ", ".join(words)


def draw(groups: Groups, path: Path) -> None:
    """Percentiles and regrets of each strategy as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [
        name for name in groups if not name.endswith(("accuracies alone", "with likelihoods", "without activations"))
    ]
    names = sorted(shown, key=lambda n: -column(groups[n], "regret").mean())
    figure, axes = pyplot.subplots(1, 2, figsize=(13, 0.3 * len(names) + 1.5), sharey=True)
    for axis, key, label, scale in (
        (axes[0], "percentile", "percentile within the budget", 1),
        (axes[1], "regret", "regret, points", 100),
    ):
        values = [scale * column(groups[name], key) for name in names]
        labels = [shown_name(name) for name in names]
        axis.boxplot(values, orientation="horizontal", tick_labels=labels, widths=0.6, showfliers=False)
        for position, points in enumerate(values, start=1):
            jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(points))
            axis.scatter(points, position + jitter, s=10, alpha=0.5)
        axis.set_xlabel(label)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def column(rows: Iterable[Row], key: str) -> Any:
    """One column as an array of numbers."""
    return np.array([float(row[key]) for row in rows])


def search_of(row: Row) -> tuple[str, str, str]:
    return row["target"], row["budget"], row["seed"]


def epochs(row: Row) -> int:
    return int(json.loads(row["settings"])["epochs"])


def is_entangled(row: Row) -> bool:
    return bool(json.loads(row["settings"])["entangle_weights"])
