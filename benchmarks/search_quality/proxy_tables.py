"""Whether zero-cost proxies help the final selection: recorded searches choose among their finalists again."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.constants import SEEDS
from benchmarks.markdown import markdown_table
from benchmarks.results_csv import read_rows
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

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5)
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

    The weight is chosen on the first seeds of the default search, and the others report it.
    """
    rows = []
    for name, values in proxies(truth).items():
        regrets = {weight: search_regrets(truth, finalists, values, weight) for weight in WEIGHTS}
        first, later = ([key for key in regrets[0.0] if (int(key[3]) < SEEDS) == early] for early in (True, False))
        chosen = min(WEIGHTS[1:], key=lambda weight: _mean(regrets[weight], first, FAMILIES[0]))
        spearman = true_spearman(np.array(values(truth.names)), truth.estimates, np.arange(len(truth.names)))
        cells = [
            f"{_mean(regrets[0.0], first, FAMILIES[0]):.2f}, {_mean(regrets[chosen], first, FAMILIES[0]):.2f}",
            *(_change(regrets[0.0], regrets[chosen], later, family) for family in FAMILIES),
        ]
        rows.append((name, f"{spearman:.2f}", chosen, *cells))
    columns = (
        "further criterion", "Spearman, all networks", "weight", f"seeds 0–{SEEDS - 1}: regret without, with",
        *(f"{family}, other seeds: without, with, difference ± standard error" for family in FAMILIES),
    )  # fmt: skip
    return markdown_table(columns, rows)


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

    return {**{names[key]: single(key) for key in SCORES}, "AZ-NAS: all four": aggregated}


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


def _change(
    without: Mapping[tuple[str, ...], float],
    changed: Mapping[tuple[str, ...], float],
    keys: Sequence[tuple[str, ...]],
    family: str,
) -> str:
    """Regret without and with, and the difference with its standard error over the seeds."""
    seeds = sorted({key[3] for key in keys if key[0] == family})
    of_seed = [
        np.mean([changed[key] - without[key] for key in keys if key[0] == family and key[3] == seed]) for seed in seeds
    ]
    error = np.std(of_seed, ddof=1) / np.sqrt(len(of_seed))
    means = f"{_mean(without, keys, family):.2f}, {_mean(changed, keys, family):.2f}"
    return f"{means}, {np.mean(of_seed):+.2f} ± {error:.2f}"
