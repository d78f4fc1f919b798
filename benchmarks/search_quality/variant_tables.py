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
from benchmarks.search_quality.supernet_tables import Supernets, regret_of, true_spearman
from nni_proxyless.decoding.ranking import ACTIVATIONS_WEIGHT, MULTIPLY_ADDS_WEIGHT, NOISE, add_weighted_criteria

Variants = Mapping[str, Mapping[int, list[dict[str, str]]]]
BEST = 0.25  # part of all networks that are the best


def predicted(known: Any, accuracies: Any, truth: GroundTruth) -> Any:
    """Accuracies of all networks by the model of `additive_fit`, from those of some networks.

    Args:
        known: Positions of the networks that have been evaluated.
        accuracies: Their accuracies.
        truth: The ground truth.

    Returns:
        Smoothed accuracy of each network, shape (networks,).
    """
    names = np.array([name.split() for name in truth.names])
    kernel = (names[:, None] == names[known]).mean(-1)  # (networks, known)
    mean = np.mean(accuracies)
    return mean + kernel @ np.linalg.solve(kernel[known] + NOISE * np.eye(len(known)), accuracies - mean)


def judged(known: Any, accuracies: Any, truth: GroundTruth) -> list[float]:
    """What accuracies with shared weights are worth.

    Returns:
        Rank correlation over the evaluated networks. Those over all networks of smoothed accuracies, and of the values
        by which the final selection ranks. That of the latter over the best quarter. The mean regret of the final
        selection among all networks within each budget, in points.
    """
    estimates = truth.estimates
    smoothed = predicted(known, accuracies, truth)
    best = np.argsort(-estimates.accuracy)[: round(BEST * len(smoothed))]
    sizes = [(np.log(of), weight) for of, weight in _sizes(truth)]
    regrets = []
    for target, budget in itertools.product(TARGETS, GROUND_TRUTH_BUDGETS):
        within = truth.within(target, truth.budget(target, budget))
        inside = add_weighted_criteria(smoothed[within].tolist(), *((of[within], weight) for of, weight in sizes))
        regrets.append(float(regret_of(estimates, within)[int(np.argmax(inside))]))
    shared = np.zeros(len(smoothed))
    shared[known] = accuracies
    every = np.arange(len(smoothed))
    ranked = np.array(add_weighted_criteria(smoothed.tolist(), *sizes))
    return [
        true_spearman(shared, estimates, known),
        true_spearman(smoothed, estimates, every),
        true_spearman(ranked, estimates, every),
        true_spearman(ranked, estimates, best),
        float(np.mean(regrets)),
    ]


def _sizes(truth: GroundTruth) -> list[tuple[Any, float]]:
    return [(truth.multiply_adds, MULTIPLY_ADDS_WEIGHT), (truth.activations, ACTIVATIONS_WEIGHT)]


def layer_slopes(known: Any, accuracies: Any, truth: GroundTruth) -> list[float]:
    """How much of the true difference between the candidates of each layer the shared weights show.

    The main effect of a candidate is the mean accuracy of all networks with it, less that of all networks. That with
    shared weights is of a fit with main effects alone. The slope of a layer is that of the regression of its main
    effects with shared weights on the true ones; 1 is perfect.
    """
    names = np.array([name.split() for name in truth.names])
    one_hot = np.concatenate([layer[:, None] == np.unique(layer) for layer in names.T], 1).astype(np.float64)
    effects = np.linalg.lstsq(one_hot[known], 100 * np.asarray(accuracies), rcond=None)[0]
    shared = one_hot @ effects
    slopes = []
    for layer in names.T:
        masks = [layer == candidate for candidate in np.unique(layer)]
        own, true = (
            np.array([of[mask].mean() for mask in masks]) - of.mean() for of in (shared, truth.estimates.accuracy)
        )
        slopes.append(float(own @ true / (true @ true)))
    return slopes


def variant_table(found: Variants, truth: GroundTruth, base: str) -> str:
    """Each variant, and its difference to the base over the seeds that both have.

    Args:
        found: Rows of each variant and seed. Rows without `cpu_seconds` are of another machine.
        truth: The ground truth.
        base: The variant that the others are compared with.
    """
    values = {name: {seed: _values(of[seed], truth) for seed in sorted(of)} for name, of in found.items()}
    columns = (
        "supernet", "seeds", "Spearman of accuracies", "smoothed", "as the final selection ranks",
        "the same, best quarter", "regret of the final selection, points", "slope of each layer", "CPU seconds",
    )  # fmt: skip
    rows = []
    for name in [base, *(name for name in values if name != base)]:
        of = values[name]
        own = np.array(list(of.values()))
        cells = [f"{value:.2f}" for value in own.mean(0)[:5]]
        if name == base:
            cells = [f"{cell} ± {error:.2f}" for cell, error in zip(cells, own.std(0, ddof=1), strict=False)]
        elif common := [seed for seed in of if seed in values[base]]:
            differences = np.array([np.subtract(of[seed], values[base][seed]) for seed in common])
            cells = [f"{cell} ({_difference(d)})" for cell, d in zip(cells, differences.T, strict=False)]
        slopes = ", ".join(f"{slope:.2f}" for slope in own.mean(0)[5:9])
        rows.append((name, _span(list(of)), *cells, slopes, f"{np.nanmedian(own[:, 9]):.0f}"))
    return markdown_table(columns, rows)


def slopes_table(found: Supernets, truth: GroundTruth, names: Sequence[str]) -> str:
    """What supernets of `shared_weights.py` show of the true differences in each layer, and how well they rank.

    Args:
        found: The supernets.
        truth: The ground truth.
        names: The variants that the table has.
    """
    every = np.arange(len(truth.names))
    sizes = [(np.log(of), weight) for of, weight in _sizes(truth)]
    columns = (
        "ranked by", "seeds", "mean accuracy, %", "slope of each layer", "Spearman of accuracies", "smoothed",
        "as the final selection ranks", "the same, best quarter",
    )  # fmt: skip
    best = np.argsort(-truth.estimates.accuracy)[: round(BEST * len(every))]
    rows = []
    for name in names:
        values = []
        for lines in (lines for (variant, _), lines in sorted(found.items()) if variant == name):
            of_name = shared_accuracies(lines)
            shared = np.array([of_name[network] for network in truth.names])
            smoothed = predicted(every, shared, truth)
            ranked = np.array(add_weighted_criteria(smoothed.tolist(), *sizes))
            values.append(
                [
                    100 * shared.mean(),
                    *layer_slopes(every, shared, truth),
                    *(true_spearman(of, truth.estimates, every) for of in (shared, smoothed, ranked)),
                    true_spearman(ranked, truth.estimates, best),
                ]
            )
        mean = np.mean(values, 0)
        slopes = ", ".join(f"{slope:.2f}" for slope in mean[1:5])
        rows.append((name, len(values), f"{mean[0]:.1f}", slopes, *(f"{value:.2f}" for value in mean[5:])))
    for name, of in (
        ("logarithm of multiply-adds", truth.multiply_adds),
        ("logarithm of activations", truth.activations),
    ):
        alone = (f"{true_spearman(of, truth.estimates, within):.2f}" for within in (every, best))
        rows.append((f"{name} alone", "", "", "", "", "", *alone))
    return markdown_table(columns, rows)


def _values(lines: list[dict[str, str]], truth: GroundTruth) -> list[float]:
    found = shared_accuracies(lines)
    known = np.array([truth.index(name) for name in found])
    accuracies = np.array(list(found.values()))
    slopes = layer_slopes(known, accuracies, truth)
    return [*judged(known, accuracies, truth), *slopes, float(lines[0].get("cpu_seconds", "nan"))]


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
