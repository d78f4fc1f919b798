"""Which of several architectures is the best, when what is known of each is noisy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NOISE = 0.1
LIKELIHOOD_WEIGHT = 0.15


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


def with_likelihoods(
    accuracies: Sequence[float], log_likelihoods: Sequence[float], weight: float = LIKELIHOOD_WEIGHT
) -> list[float]:
    """Accuracies, and where they leave the choice open, what the search itself thinks of the architectures.

    The architecture parameters have learnt from many batches throughout the search, accuracies with shared weights are
    of its last moment: two opinions whose errors have little in common. So a standard deviation of log-likelihood
    counts as `weight` standard deviations of accuracy. `benchmarks/README.md` has what it is worth.

    Args:
        accuracies: Of each architecture, smoothed.
        log_likelihoods: Of each, in nats.
        weight: 0 leaves accuracies as they are.

    Returns:
        Accuracies that have been raised or lowered, in the same order; their mean stays.
    """
    y, likelihoods = np.asarray(accuracies, dtype=np.float64), np.asarray(log_likelihoods, dtype=np.float64)
    spread = likelihoods.std()
    if spread > 1e-9:
        y = y + weight * y.std() * (likelihoods - likelihoods.mean()) / spread
    return [float(value) for value in np.round(y, 9)]


def rank_values(
    architectures: Sequence[Mapping[str, Any]], accuracies: Sequence[float], log_likelihoods: Sequence[float]
) -> list[float]:
    """What finalists are compared by, the highest being the best: `with_likelihoods` of their `additive_fit`.

    Args:
        architectures: Label to candidate, for each.
        accuracies: Of each, with the supernet's weights.
        log_likelihoods: Of each, in nats.
    """
    return with_likelihoods(additive_fit(architectures, accuracies), log_likelihoods)
