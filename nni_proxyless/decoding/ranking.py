"""Ranking of architectures by noisy accuracies and by further criteria."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NOISE = 0.1
LIKELIHOOD_WEIGHT = 0.15
MULTIPLY_ADDS_WEIGHT = 0.3
ACTIVATIONS_WEIGHT = 0.5


def additive_fit(
    architectures: Sequence[Mapping[str, Any]], accuracies: Sequence[float], noise: float = NOISE
) -> list[float]:
    """Smooth accuracies with shared weights over architectures that have candidates in common.

    Such an accuracy says little about a single architecture. However, all architectures that contain a candidate of a
    layer contribute to its estimate. The model is accuracy = mean + Σ_layers u(layer, candidate) + ε, with independent
    normal u of equal variance σ² / layers and ε of variance `noise` · σ². Its expected value without ε is kernel ridge
    regression, K (K + noise I)⁻¹ (y - ȳ) + ȳ, where K is the part of layers in which two architectures agree.

    Args:
        architectures: Architectures as mappings from labels to candidates.
        accuracies: Accuracy of each architecture.
        noise: Variance of ε in units of the variance that architectures explain, above 0.

    Returns:
        The fitted accuracies, in the same order. Two architectures keep their order.
    """
    numbers = np.array([_numbered([one[label] for one in architectures]) for label in architectures[0]])
    kernel = (numbers[:, :, None] == numbers[:, None, :]).mean(axis=0)  # (architectures, architectures)
    y = np.asarray(accuracies, dtype=np.float64)
    mean = y.mean()
    fitted = mean + kernel @ np.linalg.solve(kernel + noise * np.eye(len(y)), y - mean)
    return [float(value) for value in np.round(fitted, 9)]  # equal accuracies stay equal


def _numbered(values: Sequence[Any]) -> list[int]:
    """Replace each value by the number of the distinct value that it equals. The values need not be hashable."""
    distinct: list[Any] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return [distinct.index(value) for value in values]


def add_weighted_criteria(accuracies: Sequence[float], *criteria: tuple[Sequence[float], float]) -> list[float]:
    """Raise or lower accuracies by other criteria, each in units of standard deviations.

    Args:
        accuracies: Smoothed accuracy of each architecture.
        *criteria: Pairs of values, one for each architecture and the higher the better, and a weight: the number of
            standard deviations of accuracy that one standard deviation of the values counts as. Values that are all
            equal change nothing.

    Returns:
        The changed accuracies, in the same order. Their mean stays the same.
    """
    y = np.asarray(accuracies, dtype=np.float64)
    ranked = y
    for values, weight in criteria:
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
    activations: Sequence[float] | None = None,
) -> list[float]:
    """Compute the values by which finalists are compared; the highest is the best.

    The value is the smoothed accuracy (`additive_fit`), changed by further criteria whose errors have little in common
    with those of accuracies. The architecture parameters have learnt from many batches throughout the search, whereas
    accuracies with shared weights depend on the last weights only. Among equally fast networks, shared weights
    underrate those with more multiply-adds and with more activations. With enough images, each activation has its own
    pattern, so the number of activations is what the zero-cost proxy SWAP counts (Peng et al., Sample-Wise Activation
    Patterns for Ultra-Fast NAS, ICLR 2024). `benchmarks/search_quality` shows what each criterion contributes.

    Args:
        architectures: Architectures as mappings from labels to candidates.
        accuracies: Accuracy of each architecture with the supernet's weights, or another score; the higher the better.
        log_likelihoods: Logarithm of each architecture's probability, in nats.
        multiply_adds: Multiply-adds of each architecture, above 0. `None` if they are unknown, or if no budget
            keeps the latencies of the architectures close together.
        activations: Number of values of each architecture that pass a non-linearity, above 0, or `None` likewise.
    """
    criteria = [(log_likelihoods, LIKELIHOOD_WEIGHT)]
    for sizes, weight in ((multiply_adds, MULTIPLY_ADDS_WEIGHT), (activations, ACTIVATIONS_WEIGHT)):
        if sizes is not None:
            criteria.append(([math.log(number) for number in sizes], weight))
    return add_weighted_criteria(additive_fit(architectures, accuracies), *criteria)
