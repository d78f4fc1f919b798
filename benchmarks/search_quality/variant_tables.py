"""Table of how well supernets rank networks whose weights were trained in other ways, paired by seed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.constants import GROUND_TRUTH_BUDGETS, TARGETS
from benchmarks.markdown import markdown_table
from benchmarks.search_quality.ground_truth.load import GroundTruth
from benchmarks.search_quality.supernet_accuracies import shared_accuracies
from benchmarks.search_quality.supernet_tables import regret_of, true_spearman
from nni_proxyless.decoding.ranking import rank_values

Variants = Mapping[str, Mapping[int, list[dict[str, str]]]]
BEST = 0.25  # part of all networks that are the best


def judged(shared: Any, truth: GroundTruth) -> list[float]:
    """What accuracies with shared weights are worth.

    Args:
        shared: Accuracy of each network, shape (networks,).
        truth: The ground truth.

    Returns:
        Rank correlation over all networks, over the best quarter, and the mean regret of the final selection among all
        networks within each budget, in points.
    """
    estimates = truth.estimates
    best = np.argsort(-estimates.accuracy)[: round(BEST * len(shared))]
    choices = [dict(enumerate(name.split())) for name in truth.names]
    regrets = []
    for target, budget in itertools.product(TARGETS, GROUND_TRUTH_BUDGETS):
        within = truth.within(target, truth.budget(target, budget))
        sizes = [of[within].tolist() for of in (truth.multiply_adds, truth.activations)]
        inside = [choices[i] for i in within]
        ranked = rank_values(inside, shared[within].tolist(), [0.0] * len(inside), *sizes)
        regrets.append(float(regret_of(estimates, within)[int(np.argmax(ranked))]))
    every = np.arange(len(shared))
    return [true_spearman(shared, estimates, every), true_spearman(shared, estimates, best), float(np.mean(regrets))]


def layer_slopes(shared: Any, truth: GroundTruth) -> list[float]:
    """How much of the true difference between the candidates of each layer the shared weights show.

    The main effect of a candidate is the mean accuracy of all networks with it, less that of all networks. The slope of
    a layer is that of the regression of its main effects with shared weights on the true ones; 1 is perfect.
    """
    names = np.array([name.split() for name in truth.names])
    slopes = []
    for layer in names.T:
        masks = [layer == candidate for candidate in np.unique(layer)]
        own, true = (
            np.array([of[mask].mean() for mask in masks]) - of.mean() for of in (100 * shared, truth.estimates.accuracy)
        )
        slopes.append(float(own @ true / (true @ true)))
    return slopes


def variant_table(found: Variants, truth: GroundTruth, base: str) -> str:
    """Each variant, and its difference to the base over the seeds that both have."""
    values = {name: {seed: _values(lines, truth) for seed, lines in sorted(of.items())} for name, of in found.items()}
    columns = (
        "supernet", "seeds", "Spearman, all networks", "best quarter", "regret of the final selection, points",
        "slope of each layer", "CPU seconds, difference in %",
    )  # fmt: skip
    rows = []
    for name, of in values.items():
        common = sorted(set(of) & set(values[base]))
        own = np.array([of[seed] for seed in (common if name != base else sorted(of))])
        mean = own.mean(0)
        cells = [f"{value:.2f}" for value in mean[:3]]
        more = ""
        if name != base:
            if not common:
                continue
            against = np.array([values[base][seed] for seed in common])
            cells = [f"{cell} ({_difference(d)})" for cell, d in zip(cells, (own - against).T[:3], strict=True)]
            more = f"{100 * (np.median(own[:, 7] / against[:, 7]) - 1):+.0f}"
        slopes = ", ".join(f"{slope:.2f}" for slope in mean[3:7])
        rows.append((name, _span(common if name != base else sorted(of)), *cells, slopes, more))
    return markdown_table(columns, rows)


def _values(lines: list[dict[str, str]], truth: GroundTruth) -> list[float]:
    accuracies = shared_accuracies(lines)
    shared = np.array([accuracies[name] for name in truth.names])
    return [*judged(shared, truth), *layer_slopes(shared, truth), float(lines[0]["cpu_seconds"])]


def _difference(differences: Any) -> str:
    error = f" ± {differences.std(ddof=1) / np.sqrt(len(differences)):.2f}" if len(differences) > 1 else ""
    return f"{differences.mean():+.2f}{error}"


def _span(seeds: Sequence[int]) -> str:
    """`0–2, 5` for 0, 1, 2 and 5."""
    parts: list[list[int]] = []
    for seed in seeds:
        if parts and parts[-1][-1] == seed - 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)
