"""Which of several architectures is the best, when what is known of each is noisy. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NOISE = 0.1
LIKELIHOOD_WEIGHT = 0.15
MULTIPLY_ADDS_WEIGHT = 0.3


def additive_fit(
    architectures: Sequence[Mapping[str, Any]], accuracies: Sequence[float], noise: float = NOISE
) -> list[float]:
    """Accuracies with the weights of a supernet, smoothed by what the architectures have in common.

    Such an accuracy says little of a single architecture, but each candidate of a layer is judged by all architectures
    that have it. So the model is accuracy = mean + Σ_layers u(layer, candidate) + ε with independent normal u of
    equal variance σ² / layers and ε of variance `noise` · σ²; its expected value without ε is kernel ridge
    regression, K (K + noise I)⁻¹ (y - ȳ) + ȳ, where K is the part of layers in which two architectures agree.
    `benchmarks/README.md` has what it is worth.

    Args:
        architectures: Label to candidate, for each.
        accuracies: Of each.
        noise: Variance of ε in units of the variance that architectures explain, above 0.

    Returns:
        The fitted accuracies, in the same order; where two architectures are compared, their order stays.
    """
    labels = list(architectures[0])
    agree = [
        [sum(bool(one[label] == other[label]) for label in labels) / len(labels) for other in architectures]
        for one in architectures
    ]
    kernel = np.array(agree)  # (architectures, architectures)
    y = np.asarray(accuracies, dtype=np.float64)
    mean = y.mean()
    fitted = mean + kernel @ np.linalg.solve(kernel + noise * np.eye(len(y)), y - mean)
    return [float(value) for value in np.round(fitted, 9)]  # what should be equal is


def with_opinions(accuracies: Sequence[float], *opinions: tuple[Sequence[float], float]) -> list[float]:
    """Accuracies, and where they leave the choice open, what else is known of the architectures.

    Args:
        accuracies: Of each architecture, smoothed.
        *opinions: Values of each architecture, the higher the better, and a weight: how many standard deviations of
            accuracy one standard deviation of these values counts as. Values that are all the same count nothing.

    Returns:
        Accuracies that have been raised or lowered, in the same order; their mean stays.
    """
    y = np.asarray(accuracies, dtype=np.float64)
    ranked = y
    for values, weight in opinions:
        x = np.asarray(values, dtype=np.float64)
        spread = x.std()
        if spread > 1e-9:
            ranked = ranked + weight * y.std() * (x - x.mean()) / spread
    return [float(value) for value in np.round(ranked, 9)]


def rank_values(
    architectures: Sequence[Mapping[str, Any]],
    accuracies: Sequence[float],
    log_likelihoods: Sequence[float],
    multiply_adds: Sequence[float] | None = None,
) -> list[float]:
    """What finalists are compared by, the highest being the best: three opinions whose errors have little in common.

    Their `additive_fit`, to which two others are added (`with_opinions`). The architecture parameters have learnt from
    many batches throughout the search, accuracies with shared weights are of its last moment. And shared weights tell
    small networks from large ones less than trainings do: of networks that are as fast, those that compute more are
    better than they say. `benchmarks/README.md` has what each is worth.

    Args:
        architectures: Label to candidate, for each.
        accuracies: Of each, with the supernet's weights.
        log_likelihoods: Of each, in nats.
        multiply_adds: Of each, above 0; none where they are unknown, or where nothing keeps the latencies together.
    """
    opinions = [(log_likelihoods, LIKELIHOOD_WEIGHT)]
    if multiply_adds is not None:
        opinions.append(([math.log(number) for number in multiply_adds], MULTIPLY_ADDS_WEIGHT))
    return with_opinions(additive_fit(architectures, accuracies), *opinions)
