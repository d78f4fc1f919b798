"""Whether zero-cost proxies help the final selection: recorded searches choose among their finalists again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.cifar10.settings import network
from benchmarks.constants import CIFAR10_RESULTS, SEEDS
from benchmarks.markdown import markdown_table
from benchmarks.results_csv import read_rows
from benchmarks.search_quality.ground_truth.estimates import Floats
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.outcomes import Row
from benchmarks.search_quality.proxies import PROXIES_CSV, SCORES
from benchmarks.search_quality.settings import FINALISTS_CSV, OWN_SUFFIX, SEARCH_KEY
from benchmarks.search_quality.supernet_tables import true_spearman
from nni_proxyless.decoding.ranking import (
    LIKELIHOOD_WEIGHT,
    MULTIPLY_ADDS_WEIGHT,
    add_weighted_criteria,
    additive_fit,
)
from nni_proxyless.network.operators import total_activations, total_multiply_adds

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5)
FAMILIES = ("proxyless", f"proxyless{OWN_SUFFIX}", "warm-up of 4 epochs", "running statistics in architecture steps")
_AGGREGATED = ("expressivity", "progressivity", "trainability")
Values = Callable[[Sequence[str]], list[float]]


def az_nas(scores: Sequence[Sequence[float]]) -> list[float]:
    """Sum over proxies of the logarithm of rank / networks, so that a network that one proxy ranks low cannot be high.

    This is the aggregation of AZ-NAS. The worst network has rank 1; equal ones have the mean of their ranks.

    Args:
        scores: Scores of all networks by each proxy.
    """
    from scipy.stats import rankdata

    count = len(scores[0])
    return [float(value) for value in np.log(np.array([rankdata(of) for of in scores]) / count).sum(0)]


def proxy_table(truth: GroundTruth, finalists: Mapping[tuple[str, ...], list[Row]]) -> str:
    """Regret of the final selection with each proxy as a further criterion.

    The first seeds of the default search choose the weight, and the others report it. The chosen weight is the smallest
    whose regret is within a standard error of the best one's (Hastie, Tibshirani and Friedman, The Elements of
    Statistical Learning, section 7.10).
    """
    rows = []
    for name, values in proxies(truth).items():
        regrets = {weight: search_regrets(truth, finalists, values, weight) for weight in WEIGHTS}
        first, later = ([key for key in regrets[0.0] if (int(key[3]) < SEEDS) == early] for early in (True, False))
        best = min(WEIGHTS, key=lambda weight: _mean(regrets[weight], first, FAMILIES[0]))
        chosen = next(w for w in WEIGHTS if _as_good(regrets[w], regrets[best], first, FAMILIES[0]))
        spearman = true_spearman(np.array(values(truth.names)), truth.estimates, np.arange(len(truth.names)))
        cells = [
            f"{_mean(regrets[0.0], first, FAMILIES[0]):.2f}, {_mean(regrets[chosen], first, FAMILIES[0]):.2f}",
            *(_change(regrets[0.0], regrets[chosen], later, family) for family in FAMILIES),
        ]
        rows.append((name, f"{spearman:.2f}", chosen or "none", *cells))
    columns = (
        "further criterion", "Spearman, all networks", "weight", f"seeds 0–{SEEDS - 1}: regret without, with",
        *(f"{family}, other seeds: without, with, difference ± standard error" for family in FAMILIES),
    )  # fmt: skip
    return markdown_table(columns, rows)


def cifar10_table() -> str:
    """Whether size explains the accuracy of networks of another space that are equally fast.

    The networks are those that searches on CIFAR-10 have exported for the same target and budget. Their accuracies are
    regressed on the logarithms of their sizes, with a constant for each pair of target and budget.
    """
    accuracies: dict[str, list[float]] = defaultdict(list)
    for row in read_rows(CIFAR10_RESULTS / "retrained.csv"):
        accuracies[row["network"]].append(100 * float(row["top1"]))
    pairs: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in read_rows(CIFAR10_RESULTS / "searches.csv"):
        if row["architecture"] in accuracies:
            pairs[row["target"], row["budget"]].add(row["architecture"])
    accuracy, sizes = [], []
    for networks in pairs.values():
        operators = [network(one).operators() for one in sorted(networks)]
        logarithms = np.log([[total_multiply_adds(of), total_activations(of)] for of in operators])
        of_pair = np.array([np.mean(accuracies[one]) for one in sorted(networks)])
        accuracy.append(of_pair - of_pair.mean())
        sizes.append(logarithms - logarithms.mean(0))
    y, x = np.concatenate(accuracy), np.concatenate(sizes)
    x = x / x.std(0)
    rows = []
    for name, columns in (("multiply-adds", [0]), ("activations", [1]), ("both", [0, 1])):
        slopes, errors = _regression(x[:, columns], y, len(y) - len(columns) - len(pairs))
        cells = [f"{slope:+.2f} ± {error:.2f}" for slope, error in zip(slopes, errors, strict=True)]
        rows.append((name, len(y), ", ".join(cells)))
    columns_of = ("regression on the logarithm of", "networks", "points for one standard deviation ± standard error")
    return markdown_table(columns_of, rows)


def _regression(x: Floats, y: Floats, freedom: int) -> tuple[Floats, Floats]:
    """Slopes of a least-squares fit without a constant, and their standard errors."""
    inverse = np.linalg.inv(x.T @ x)
    slopes: Floats = inverse @ x.T @ y
    errors: Floats = np.sqrt(np.diag(inverse) * ((y - x @ slopes) ** 2).sum() / freedom)
    return slopes, errors


def compared_finalists(families: Sequence[str] = FAMILIES) -> dict[tuple[str, ...], list[Row]]:
    """Key of each recorded search of some strategies to its finalists."""
    found: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for line in read_rows(FINALISTS_CSV):
        if line["strategy"] in families and line["log_likelihood"]:
            found[tuple(line[key] for key in SEARCH_KEY)].append(line)
    return dict(found)


def proxies(truth: GroundTruth) -> dict[str, Values]:
    """Name of each proxy to the values that it gives some networks."""
    recorded = {row["architecture"]: row for row in read_rows(PROXIES_CSV)}
    names = {"swap": "SWAP", **{key: f"AZ-NAS: {key}" for key in _AGGREGATED}}

    def single(key: str) -> Values:
        return lambda networks: [float(recorded[one][key]) for one in networks]

    def aggregated(networks: Sequence[str]) -> list[float]:
        multiply_adds = [float(truth.multiply_adds[truth.index(one)]) for one in networks]
        return az_nas([*(single(key)(networks) for key in _AGGREGATED), multiply_adds])

    def activations(networks: Sequence[str]) -> list[float]:
        return [math.log(truth.activations[truth.index(one)]) for one in networks]

    of_key = {names[key]: single(key) for key in SCORES}
    return {**of_key, "AZ-NAS: all four": aggregated, "logarithm of activations": activations}


def search_regrets(
    truth: GroundTruth, finalists: Mapping[tuple[str, ...], list[Row]], values: Values, weight: float
) -> dict[tuple[str, ...], float]:
    """Key of each search to the regret of the finalist that is best with a further criterion, in points."""
    found = {}
    for key, lines in finalists.items():
        networks = [line["architecture"] for line in lines]
        choices = [dict(enumerate(one.split())) for one in networks]
        multiply_adds = [math.log(truth.multiply_adds[truth.index(one)]) for one in networks]
        ranked = add_weighted_criteria(
            additive_fit(choices, [float(line["shared_accuracy"]) for line in lines]),
            ([float(line["log_likelihood"]) for line in lines], LIKELIHOOD_WEIGHT),
            (multiply_adds, MULTIPLY_ADDS_WEIGHT),
            (values(networks), weight),
        )
        best = networks[ranked.index(max(ranked))]
        found[key] = 100 * truth.score(best, key[1], truth.budget(key[1], float(key[2]))).regret
    return found


def _mean(regrets: Mapping[tuple[str, ...], float], keys: Sequence[tuple[str, ...]], family: str) -> float:
    return float(np.mean([regrets[key] for key in keys if key[0] == family]))


def _as_good(
    regrets: Mapping[tuple[str, ...], float],
    best: Mapping[tuple[str, ...], float],
    keys: Sequence[tuple[str, ...]],
    family: str,
) -> bool:
    """Whether the mean regret is at most a standard error above the best one, paired by seed."""
    of_seed = _by_seed(best, regrets, keys, family)
    return float(of_seed.mean()) <= float(of_seed.std(ddof=1)) / math.sqrt(len(of_seed))


def _by_seed(
    without: Mapping[tuple[str, ...], float],
    changed: Mapping[tuple[str, ...], float],
    keys: Sequence[tuple[str, ...]],
    family: str,
) -> Floats:
    """Mean difference of the regrets of each seed."""
    of = [key for key in keys if key[0] == family]
    seeds = sorted({key[3] for key in of})
    return np.array([np.mean([changed[key] - without[key] for key in of if key[3] == seed]) for seed in seeds])


def _change(
    without: Mapping[tuple[str, ...], float],
    changed: Mapping[tuple[str, ...], float],
    keys: Sequence[tuple[str, ...]],
    family: str,
) -> str:
    """Regret without and with, and the difference with its standard error over the seeds."""
    of_seed = _by_seed(without, changed, keys, family)
    error = of_seed.std(ddof=1) / np.sqrt(len(of_seed))
    means = f"{_mean(without, keys, family):.2f}, {_mean(changed, keys, family):.2f}"
    return f"{means}, {of_seed.mean():+.2f} ± {error:.2f}"
