"""Suggestions of networks to measure next, and an estimate of how much more measurements would help."""

from __future__ import annotations

import numpy as np

from ..architectures_file import Measurements
from ..arrays import FloatArray
from ..costs import SpaceCosts
from .fit import LEAST_NETWORKS, Encoding, left_out_error
from .similarity import kernels

_POOL = 2000


def suggest(
    candidates: dict[str, tuple[str, ...]], count: int, measured: Measurements | None = None, seed: int = 0
) -> list[dict[str, str]]:
    """Choose the networks whose latencies would be most informative about the costs of candidates.

    The networks are chosen greedily from a random pool. Each step takes the network with the largest posterior variance
    of its latency, given the measured networks and those already chosen, under the prior of `similarity.py`. For a
    Gaussian prior this is the network with the largest information gain (MacKay 1992).

    Args:
        candidates: Candidate names of each layer, by layer label.
        count: Number of networks to choose.
        measured: Networks that are already measured.
        seed: Seed of the random pool.

    Returns:
        Chosen networks, each as candidate names by layer label.
    """
    encoding = Encoding(candidates)
    generator = np.random.default_rng(seed)
    pool = {k: generator.choice(np.array(names), max(_POOL, 10 * count)) for k, names in candidates.items()}
    features = encoding.features(pool)
    prior = sum(kernel / np.mean(np.diag(kernel)) for kernel in kernels(encoding.choices))
    covariance: FloatArray = np.asarray(features @ prior @ features.T)
    noise = 0.01 * float(np.mean(np.diag(covariance)))
    if measured is not None:
        known = encoding.features(measured.layers)
        cross = features @ prior @ known.T
        inner = known @ prior @ known.T + noise * np.eye(len(known))
        covariance = covariance - cross @ np.linalg.solve(inner, cross.T)
    taken: list[int] = []
    for _ in range(count):
        variance = np.diag(covariance).copy()
        variance[taken] = -np.inf
        best = int(np.argmax(variance))
        taken.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (column[best] + noise)
    return [{label: str(column[i]) for label, column in pool.items()} for i in taken]


def learning_curve(
    measurements: Measurements, encoding: Encoding, basis: list[SpaceCosts], repeats: int = 3
) -> list[tuple[int, float]]:
    """Compute the cross-validated error with half of the measurements and with all of them.

    Args:
        measurements: Whole networks and their latencies.
        encoding: Encoding of the candidates.
        basis: Basis tables applied to the space of the measurements.
        repeats: Number of random halves over which the error is averaged.

    Returns:
        Pairs of the number of networks and their mean relative error. The half is omitted if it is too small for a fit.
    """
    n = len(measurements)
    generator = np.random.default_rng(0)
    found = []
    half = n // 2
    if half >= LEAST_NETWORKS:
        errors = [
            left_out_error(measurements.rows(generator.permutation(n)[:half]), encoding, basis) for _ in range(repeats)
        ]
        found.append((half, float(np.mean(errors))))
    found.append((n, left_out_error(measurements, encoding, basis)))
    return found


def how_many_more(curve: list[tuple[int, float]]) -> str:
    """State in a sentence how much further measurements would reduce the error.

    The error of a fit with n networks is approximately floor + c / n. Two points of the learning curve determine both
    parameters, and these predict the error with twice as many networks.

    Args:
        curve: Learning curve as returned by `learning_curve`.
    """
    if len(curve) < 2:
        return f"measure at least {2 * LEAST_NETWORKS} networks to learn how much more would help"
    (few, before), (many, now) = curve
    slope = max(0.0, (before - now) / (1.0 / few - 1.0 / many))
    floor = max(0.0, now - slope / many)
    doubled = floor + slope / (2 * many)
    if doubled > 0.95 * now:
        return (
            f"more measurements would hardly help: {100 * now:.1f} % error with {many}, {100 * before:.1f} % with {few}"
        )
    return (
        f"{many} more measurements would take the error from {100 * now:.1f} % to about {100 * doubled:.1f} % "
        f"(it was {100 * before:.1f} % with {few})"
    )
