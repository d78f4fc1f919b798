"""Tables of the pages about search quality, made from the CSV files."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np

from benchmarks.constants import FINALISTS, GROUND_TRUTH_BUDGETS, RANDOM_BEST_OF, SEEDS
from benchmarks.markdown import markdown_table
from benchmarks.results_csv import read_rows
from benchmarks.search_quality import one_for_all
from benchmarks.search_quality.goals import Goal, goals_table, missed_table, search_goals
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.ground_truth.oracle import best_table, halves_table, numbers_table, oracle_table
from benchmarks.search_quality.ground_truth.summary import budget_table, correlation_table, cost_table
from benchmarks.search_quality.outcomes import Row, most_rows, random_rows, selected_rows
from benchmarks.search_quality.proxy_tables import cifar10_table, compared_finalists, proxy_table
from benchmarks.search_quality.settings import BASE, HALVING, MOST, NNI, OWN_SUFFIX, SEARCHES_CSV, TRIED_CSV
from benchmarks.search_quality.summary import (
    NAMES,
    RANDOM,
    Groups,
    against_base_table,
    against_random,
    by_strategy,
    column,
    epochs,
    paired_table,
    percentile_cell,
    regret_cell,
    steps_cell,
    strategy_table,
)
from benchmarks.search_quality.supernet_accuracies import read_supernets
from benchmarks.search_quality.supernet_tables import limits_table, supernet_table
from benchmarks.search_quality.variant_tables import slopes_table, variant_table
from benchmarks.search_quality.weight_variants import BASE as WEIGHTS_AS_THEY_ARE
from benchmarks.search_quality.weight_variants import read_variants, with_recorded

ALL_SEEDS = 10
# Rows that compare final selections of a search: suffix of the row to what it is called.
_SELECTION = f", {FINALISTS} finalists"
_SELECTIONS = {
    ", likeliest": "none",
    f"{_SELECTION}, accuracies alone": "accuracies alone",
    f"{_SELECTION}, with likelihoods": "with likelihoods",
    f"{_SELECTION}, without activations": "with multiply-adds, too",
    _SELECTION: "with activations, too",
}
# Everything that was tried on the default of 2026-11-27.
_TRIED_ON_TWO_PATH = (
    f"proxyless_two_path{OWN_SUFFIX}", "fair throughout", "rate 0.05", "rate 0.05, fair warm-up",
    "rate 0.05, fair throughout", "finalists trained for 4 epochs", "finalists not trained",
)  # fmt: skip
_LATER = (
    "no architecture decay", "entangled weights", "full gradient in every second step, fair throughout",
    "one for all budgets", "one for all budgets, no architecture decay",
)  # fmt: skip
# Searches on the default of 2026-11-28 that recorded likelihoods.
_WITH_LIKELIHOODS = (
    BASE, "one for all budgets", "warm-up of 4 epochs", "running statistics in architecture steps",
    "fair paths throughout", "4 draws in a step", "architecture rate halved",
    "one for all budgets, entangled weights", "one for all budgets, architecture rate 0.001",
)  # fmt: skip


@cache
def ground_truth() -> GroundTruth:
    """The ground truth that all tables of this process are made with."""
    return GroundTruth()


@cache
def _selected(path: Path, counts: tuple[int, ...] = (1, FINALISTS), families: tuple[str, ...] = ()) -> Groups:
    """What the searches of a file export with each final selection; only those of some strategies if there are any."""
    rows = [row for row in read_rows(path) if not families or row["strategy"] in families]
    return by_strategy(selected_rows(rows, counts, ground_truth()))


@cache
def _baselines() -> tuple[Row, ...]:
    return (*random_rows(ALL_SEEDS, ground_truth()), *most_rows(ground_truth()))


@cache
def _searches() -> Groups:
    return {**_selected(SEARCHES_CSV), **by_strategy(_baselines())}


def _labels(suffix: str, families: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Row to its name and its final selection: no final selection and the default one."""
    made = {}
    for family in families:
        made[f"{family}{suffix}{_SELECTION}"] = (NAMES[family], f"{FINALISTS} networks")
        made[f"{family}{suffix}, likeliest"] = (NAMES[family], "none")
    return made


def _quality(labels: Mapping[str, tuple[str, str]]) -> str:
    """Rows of some strategies, the smallest mean regret first."""
    groups = {name: rows for name, rows in _searches().items() if name in labels}
    pairs = against_random(_searches())
    per_epoch = max(int(row["weight_steps"]) / epochs(row) for of in groups.values() for row in of if epochs(row))
    columns = (
        "strategy", "final selection", "searches", "percentile: median (quartiles)", "regret, points: mean (worst)",
        f"regret, seeds 0–{SEEDS - 1}",
        f"better than random best-of-8 at budget {', '.join(map(str, GROUND_TRUTH_BUDGETS))}",
        "weight + architecture steps", "seconds, seed 0",
    )  # fmt: skip
    made = []
    for name in sorted(groups, key=lambda n: column(groups[n], "regret").mean()):
        rows = groups[name]
        first = [row for row in rows if int(row["seed"]) < SEEDS]
        of_seed_0 = [row for row in rows if int(row["seed"]) == 0]
        made.append(
            (
                *labels[name],
                len(rows),
                percentile_cell(rows),
                regret_cell(rows),
                f"{100 * column(first, 'regret').mean():.2f}",
                _pairs_cell([pairs.get((name, budget)) for budget in GROUND_TRUTH_BUDGETS]),
                steps_cell(rows, per_epoch),
                f"{np.median(column(of_seed_0, 'seconds')):.0f}" if of_seed_0 else "",
            )
        )
    return markdown_table(columns, made)


def _pairs_cell(numbers: list[tuple[int, int, int] | None]) -> str:
    """How many searches were better at each budget, and of how many; equal ones are mentioned."""
    known = [n for n in numbers if n is not None]
    if not known:
        return ""
    cells = [f"{better} (+ {equal} equal)" if equal else str(better) for better, equal, _ in known]
    return f"{', '.join(cells)} of {sum(known[0])}"


def search_quality() -> str:
    """The table of the README: entangled weights."""
    labels = {**_labels("", ("proxyless", "proxyless_reinforce", *NNI)), **RANDOM, MOST: (MOST, "none")}
    return _quality(labels)


def own_weights() -> str:
    """The same with weights of their own for all candidates."""
    labels = _labels(OWN_SUFFIX, ("proxyless", "proxyless_full", "proxyless_two_path", *NNI))
    for family in ("proxyless_full", "proxyless_two_path", "enas"):  # without recorded likelihoods
        labels[f"{family}{OWN_SUFFIX}{_SELECTION}, accuracies alone"] = (NAMES[family], "accuracies alone")
    return _quality({**labels, **{name + OWN_SUFFIX: label for name, label in RANDOM.items()}})


def final_selection() -> str:
    """Mean regret of each final selection."""
    groups = {**_selected(TRIED_CSV), **_searches()}
    families = [
        *(name + suffix for suffix in ("", OWN_SUFFIX) for name in ("proxyless", "proxyless_reinforce", *NNI)),
        *_WITH_LIKELIHOODS,
    ]  # fmt: skip
    made = []
    for family in families:
        rows = [groups.get(family + suffix, []) for suffix in _SELECTIONS]
        if rows[-1]:
            made.append((family, "; ".join(dict.fromkeys(str(len(of)) for of in rows)), *map(_mean_regret, rows)))
    return markdown_table(("strategy", "searches", *_SELECTIONS.values()), made)


def _mean_regret(rows: list[Row]) -> str:
    return f"{100 * column(rows, 'regret').mean():.2f}" if rows else ""


def tried_on_two_path() -> str:
    """What was tried on the default of 2026-11-27."""
    counts = (1, 32, FINALISTS, -32, -FINALISTS)
    return strategy_table(
        {
            **_selected(TRIED_CSV, counts, _TRIED_ON_TWO_PATH),
            **_selected(SEARCHES_CSV, counts, _TRIED_ON_TWO_PATH),
        }
    )


def tried_later() -> str:
    """What was tried with the gradient of all paths."""
    return strategy_table(_selected(TRIED_CSV, families=_LATER))


def latency_in_nni() -> str:
    """NNI's strategies with latency in their loss or reward."""
    groups = _selected(TRIED_CSV)
    return strategy_table({name: rows for name, rows in groups.items() if "latency weight 0.1" in name})


def tried_on_base() -> str:
    """Changes tried on the warm-up of 8 epochs, search by search."""
    groups = {name: list(rows) for name, rows in _selected(TRIED_CSV).items()}
    for name, rows in _selected(SEARCHES_CSV).items():
        groups.setdefault(name, []).extend(rows)
    return against_base_table(groups, (1, FINALISTS))


def halving() -> str:
    """Successive halving of the finalists against six more epochs, which take as long."""
    trained = by_strategy(read_rows(TRIED_CSV))[HALVING]
    return paired_table(
        {
            "the default": _selected(SEARCHES_CSV)[f"proxyless{_SELECTION}"],
            "14 epochs, 64 finalists": _selected(TRIED_CSV)[f"{HALVING}{_SELECTION}"],
            "14 epochs, 64 finalists, the best 8 trained on by halves": trained,
        }
    )


def paired() -> str:
    """Ours against the others, paired by seed."""
    groups = _searches()
    families = ("gumbel_darts", "nni_proxyless_builtin", "darts")
    made = {"ours": groups[f"proxyless{_SELECTION}"]}
    for family in families:
        made[f"{NAMES[family]}, 64 networks"] = groups[f"{family}{_SELECTION}"]
        made[f"{NAMES[family]}, no final selection"] = groups[f"{family}, likeliest"]
    for name in ("random_best_of_64, as ours", "random_best_of_8"):
        made[", ".join(RANDOM[name])] = groups[name]
    return paired_table(made, ground_truth())


@cache
def recorded_goals(suffix: str = "") -> list[Goal]:
    """The goals of the searches with entangled weights, or with weights of their own."""
    return search_goals(_searches(), ground_truth(), read_supernets(), _SELECTION, suffix)


def halves() -> str:
    """Estimates of the ground truth from half of the trainings, against the other half."""
    names = {
        f"proxyless{_SELECTION}": "ours",
        "gumbel_darts, likeliest": "NNI's `GumbelDARTS`",
        "nni_proxyless_builtin, likeliest": "NNI's `Proxyless`",
        "random_best_of_64, as ours": "random search, 64 networks, as ours",
        f"random_best_of_{RANDOM_BEST_OF}": "random search, 8 networks",
    }
    groups = {f"exported by {name}": [row["architecture"] for row in _searches()[key]] for key, name in names.items()}
    return halves_table(ground_truth(), groups)


def supernets() -> str:
    """How well supernets rank networks."""
    return supernet_table(read_supernets(), ground_truth())


def layer_slopes() -> str:
    """What supernets of different lengths show of the differences between the candidates of each layer."""
    variants = ("random, 5 epochs", "random, 10 epochs", "random", "fair, entangled weights", "random, own weights")
    return slopes_table(read_supernets(), ground_truth(), variants)


def weight_variants() -> str:
    """Supernets whose weights are trained in other ways."""
    found = with_recorded(read_variants(), read_supernets())
    return variant_table(found, ground_truth(), WEIGHTS_AS_THEY_ARE)


def limits(suffix: str) -> str:
    """How much regret the ranking by one or several supernets leaves."""
    if not suffix:
        return limits_table(read_supernets(), ground_truth(), _baselines())
    averaged = tuple(itertools.product((1, 2, 5, 10), (f"random{suffix}",)))
    return limits_table(read_supernets(), ground_truth(), _baselines(), averaged, suffix)


TABLES = {
    "search_quality": search_quality,
    "own_weights": own_weights,
    "final_selection": final_selection,
    "one_for_all": one_for_all.table,
    "tried_on_two_path": tried_on_two_path,
    "tried_later": tried_later,
    "tried_on_base": tried_on_base,
    "latency_in_nni": latency_in_nni,
    "halving": halving,
    "paired": paired,
    "search_goals": lambda: goals_table(recorded_goals()),
    "search_goals_own_weights": lambda: goals_table(recorded_goals(OWN_SUFFIX)),
    "search_missed": lambda: missed_table(recorded_goals()),
    "zero_cost_proxies": lambda: proxy_table(ground_truth(), compared_finalists()),
    "zero_cost_cifar10": cifar10_table,
    "supernets": supernets,
    "layer_slopes": layer_slopes,
    "weight_variants": weight_variants,
    "limits": partial(limits, ""),
    "limits_own_weights": partial(limits, OWN_SUFFIX),
    "ground_truth": lambda: budget_table(ground_truth()),
    "ground_truth_costs": lambda: cost_table(ground_truth()),
    "ground_truth_numbers": lambda: numbers_table(ground_truth()),
    "ground_truth_best": lambda: best_table(ground_truth()),
    "ground_truth_oracle": lambda: oracle_table(ground_truth()),
    "ground_truth_halves": halves,
    "ground_truth_correlations": lambda: correlation_table(ground_truth()),
}
