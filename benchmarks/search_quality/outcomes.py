"""Networks that searches export, or would have exported, with their place in the ground truth: one row for each."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from benchmarks.constants import GROUND_TRUTH_BUDGETS
from benchmarks.results_csv import read_rows
from benchmarks.search_quality.ground_truth.load import SPACE, TABLES, GroundTruth
from benchmarks.search_quality.settings import (
    COMMON,
    FINALISTS_CSV,
    MOST,
    OWN_SUFFIX,
    RANDOM,
    SEARCH_KEY,
    Ranking,
)
from benchmarks.search_quality.supernet_accuracies import read_supernets, shared_accuracies
from nni_proxyless.decoding.random_networks import draw_within
from nni_proxyless.decoding.ranking import additive_fit, rank_values
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.space_spec import SpaceSpec

Row = dict[str, str]


def scored(truth: GroundTruth, architecture: str, target: str, budget: float) -> dict[str, Any]:
    """The columns of a row that follow from the exported network, its target and its budget."""
    budget_ms = truth.budget(target, budget)
    score = truth.score(architecture, target, budget_ms)
    return {
        "target": target,
        "budget": budget,
        "budget_ms": budget_ms,
        "architecture": architecture,
        "accuracy": round(score.accuracy, 6),
        "best_accuracy": round(score.best_accuracy, 6),
        "regret": round(score.regret, 6),
        "percentile": round(score.percentile, 3),
        "within_budget": score.within_budget,
    }


def random_rows(seeds: int, truth: GroundTruth) -> list[Row]:
    """What random search exports, for each seed whose supernet has been trained.

    Its supernet depends on the seed alone. So `shared_weights.py` trains one supernet for all budgets and targets and
    ranks every network with it; the draws and the choice are those of the strategy `random`.
    """
    spec = SpaceSpec.from_yaml(str(SPACE))
    costs = {target: LatencyTable.load(table).costs(spec) for target, table in TABLES.items()}
    candidates = {layer.label: tuple(layer.names) for layer in spec.layers}
    rows = []
    for (variant, seed), lines in sorted(read_supernets().items()):
        if variant not in ("random", f"random{OWN_SUFFIX}") or seed >= seeds:
            continue
        suffix = variant.removeprefix("random")
        shared = shared_accuracies(lines)
        for (name, (count, ranking)), target, budget in itertools.product(RANDOM.items(), TABLES, GROUND_TRUTH_BUDGETS):
            generator = random.Random(f"random {seed}")
            drawn = draw_within(candidates, costs[target], truth.budget(target, budget), count, generator)
            settings = {**COMMON, "strategy": "random", "best_of": count, "entangle_weights": not suffix}
            row = {
                **scored(truth, _best_drawn(drawn, shared, ranking, truth), target, budget),
                "strategy": name + suffix,
                "seed": seed,
                "settings": json.dumps(settings, sort_keys=True),
                "weight_steps": int(lines[0]["weight_steps"]),
                "architecture_steps": 0,
                "seconds": round(float(lines[0]["training_seconds"]) + count * float(lines[0]["seconds_each"]), 1),
            }
            rows.append(_as_read(row))
    return rows


def most_rows(truth: GroundTruth) -> list[Row]:
    """The network with the most multiply-adds within each budget."""
    rows = []
    for target, budget in itertools.product(TABLES, GROUND_TRUTH_BUDGETS):
        within = truth.within(target, truth.budget(target, budget))
        best = truth.names[within[truth.multiply_adds[within].argmax()]]
        row = {
            "strategy": MOST, "seed": 0, "settings": json.dumps({**COMMON, "epochs": 0}), "weight_steps": 0,
            "architecture_steps": 0, "seconds": 0, **scored(truth, best, target, budget),
        }  # fmt: skip
        rows.append(_as_read(row))
    return rows


def selected_rows(rows: list[Row], counts: Iterable[int], truth: GroundTruth) -> list[Row]:
    """What searches would have exported with another final selection.

    The final selection is the last thing that a search does, so one search gives the results of all counts up to its
    own.

    Args:
        rows: Rows of the searches.
        counts: Numbers of finalists. 1 takes the most likely network. A count below 0 ranks that many networks by
            their own accuracies with shared weights alone.
        truth: The ground truth.

    Returns:
        Rows with other names: `<strategy>, likeliest` for 1, `<strategy>, <k> finalists` as the recipe's defaults
        select, `…, without activations`, `…, with likelihoods` without multiply-adds too, `…, accuracies alone`, and
        `…, not smoothed` for a count below 0.
    """
    compared: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for line in read_rows(FINALISTS_CSV):
        compared[tuple(line[k] for k in SEARCH_KEY)].append(line)
    found = []
    for count, row in itertools.product(counts, rows):
        lines = compared.get(tuple(row[k] for k in SEARCH_KEY), [])
        if len(lines) < abs(count):
            continue
        lines = sorted(lines, key=lambda line: int(line["rank"]))[: abs(count)]
        for suffix, values in _selections(lines, truth, smoothed=count > 0).items():
            best = lines[values.index(max(values))]["architecture"]
            name = "likeliest" if abs(count) == 1 else f"{abs(count)} finalists{suffix}"
            outcome = _as_read(scored(truth, best, row["target"], float(row["budget"])))
            found.append({**row, **outcome, "strategy": f"{row['strategy']}, {name}"})
    return found


def _selections(lines: list[Row], truth: GroundTruth, smoothed: bool) -> dict[str, list[float]]:
    """Suffix of the row's name to the values by which the finalists are ranked."""
    accuracies = [float(line["shared_accuracy"]) for line in lines]
    if len(lines) == 1:
        return {"": accuracies}
    if not smoothed:
        return {", not smoothed": accuracies}
    choices = [dict(enumerate(line["architecture"].split())) for line in lines]
    fitted = additive_fit(choices, accuracies)
    if not lines[0]["log_likelihood"]:  # searches before 2026-11-28 did not record likelihoods
        return {", accuracies alone": fitted}
    likelihoods = [float(line["log_likelihood"]) for line in lines]
    networks = [truth.index(line["architecture"]) for line in lines]
    sizes = [of[networks].tolist() for of in (truth.multiply_adds, truth.activations)]
    return {
        ", accuracies alone": fitted,
        ", with likelihoods": rank_values(choices, accuracies, likelihoods),
        ", without activations": rank_values(choices, accuracies, likelihoods, sizes[0]),
        "": rank_values(choices, accuracies, likelihoods, *sizes),
    }


def _best_drawn(drawn: list[dict[str, Any]], shared: dict[str, float], ranking: Ranking, truth: GroundTruth) -> str:
    names = [" ".join(choices.values()) for choices in drawn]
    values = [shared[network] for network in names]
    if ranking == "smoothed":
        values = additive_fit(drawn, values)
    elif ranking == "final selection":  # all drawn networks are equally likely
        networks = [truth.index(network) for network in names]
        sizes = [of[networks].tolist() for of in (truth.multiply_adds, truth.activations)]
        values = rank_values(drawn, values, [0.0] * len(drawn), *sizes)
    return names[values.index(max(values))]


def _as_read(row: dict[str, Any]) -> Row:
    """The row as it would be read from a CSV file."""
    return {key: str(value) for key, value in row.items()}
