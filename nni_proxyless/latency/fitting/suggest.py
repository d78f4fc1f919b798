"""Which networks to measure next, and how much it would help."""

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
    """The networks whose latencies would tell most about the costs of candidates.

    One after the other, of many random networks that one is taken whose latency is least certain given those measured
    and those already taken: the largest posterior variance under the prior of `similarity.py`, which for a Gaussian is
    the largest gain of information (MacKay 1992).

    Args:
        candidates: Label to candidate names.
        count: How many networks.
        measured: Networks that are known already.
        seed: Draws the random networks.

    Returns:
        Label to candidate of each.
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
    """Mean relative error of networks left out, with a half and with all of the measurements.

    Returns:
        Pairs of the number of networks and the error.
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
    """What a learning curve says of further measurements, in a sentence.

    The error of a fit falls about as floor + c / n: two points give both, and with them the error at twice as many.
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
