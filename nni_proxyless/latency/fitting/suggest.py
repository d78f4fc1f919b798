"""Suggestions of networks to measure next, and an estimate of how much more measurements would help."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...errors import InputError
from ...values import MOST_SUGGESTED
from ..architectures_file import Measurements
from ..arrays import FloatArray
from ..costs import SpaceCosts
from ..counts import Counts
from .encoding import Encoding
from .few_shot import random_spread
from .fit import LEAST_NETWORKS, known_quantities, left_out_error
from .similarity import residual_prior

_POOL = 2000
_MOST_POOL = 10_000
_NOISE = 1.0  # variance of a measurement, in units of the prior variance of one quantity over random networks
_RESIDUAL = 0.3  # variance of the residual in the same unit
_LEVEL = 10.0  # variance of the latency that all networks share, in the same unit: practically free


def suggest(
    candidates: Mapping[str, Sequence[str]],
    count: int,
    measured: Measurements | None = None,
    seed: int = 0,
    *,
    basis: Sequence[SpaceCosts] = (),
    counts: Counts | None = None,
    pool: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> list[dict[str, str]]:
    """Choose the networks whose latencies would be most informative about the costs of candidates.

    The networks are chosen greedily from a pool. Each step takes the network with the largest posterior variance of its
    latency, given the measured networks and those already chosen. For a Gaussian prior this is the network with the
    largest information gain (MacKay 1992). With basis tables or counts, the prior is that of `few_shot.py`: a
    combination of these quantities, each with the same variance over random networks, and a smaller residual. Without
    them, it is that of `similarity.py`.

    Args:
        candidates: Candidate names of each layer, by layer label.
        count: Number of networks to choose.
        measured: Networks that are already measured.
        seed: Seed of the random pool.
        basis: Tables of other devices applied to the space.
        counts: What each candidate computes.
        pool: Names of the candidates of the networks to choose from, by layer label. Default: 2,000 random networks, or
            all networks of a small space.

    Returns:
        Chosen networks, each as candidate names by layer label. None is measured yet, and none is chosen twice.

    Raises:
        InputError: The pool has fewer networks than are to be chosen or too many, more than `MOST_SUGGESTED` networks
            are asked for, or the counts lack a candidate.
    """
    if count > MOST_SUGGESTED:
        raise InputError(f"at most {MOST_SUGGESTED} networks can be suggested at once, got {count}")
    if pool is not None and len(next(iter(pool.values()))) > _MOST_POOL:
        given = len(next(iter(pool.values())))
        raise InputError(f"at most {_MOST_POOL} networks can be given to choose from, got {given}; give a part of them")
    encoding = Encoding(candidates)
    pool = _unmeasured(_random_pool(candidates, count, seed) if pool is None else pool, measured)
    features = encoding.features(pool)
    if count > len(features):
        new = "" if measured is None else " that are not measured yet"
        raise InputError(f"{count} networks were asked for, but there are only {len(features)}{new} to choose from")
    prior, noise = _prior(encoding, features, basis, counts)
    covariance: FloatArray = np.asarray(features @ prior @ features.T)
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


def _random_pool(candidates: Mapping[str, Sequence[str]], count: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    size = max(_POOL, 10 * count)
    if math.prod(map(len, candidates.values())) <= size:
        networks = list(itertools.product(*candidates.values()))
        return {label: np.array(column) for label, column in zip(candidates, zip(*networks, strict=True), strict=True)}
    generator = np.random.default_rng(seed)
    return {label: generator.choice(np.array(names), size) for label, names in candidates.items()}


def _unmeasured(
    pool: Mapping[str, np.ndarray[Any, Any]], measured: Measurements | None
) -> dict[str, np.ndarray[Any, Any]]:
    """Remove the networks that are measured already, and those that are in the pool a second time."""
    seen = set() if measured is None else set(zip(*(measured.layers[k].tolist() for k in pool), strict=True))
    rows = []
    for row, network in enumerate(zip(*(column.tolist() for column in pool.values()), strict=True)):
        if network not in seen:
            seen.add(network)
            rows.append(row)
    return {label: column[rows] for label, column in pool.items()}


def _prior(
    encoding: Encoding, features: FloatArray, basis: Sequence[SpaceCosts], counts: Counts | None
) -> tuple[FloatArray, float]:
    """Return the prior covariance of the costs, shape (m, m), and the variance of the noise."""
    prior = residual_prior(encoding.choices)
    if not basis and counts is None:
        return prior, 0.01 * float(np.mean(np.einsum("ij,jk,ik->i", features, prior, features)))
    spread = encoding.covariance()
    known = known_quantities(encoding, basis, counts)
    # Each layer carries an equal part of what is fixed, because every network has one of its candidates.
    layers = len(encoding.candidates)
    values = known.of_choices + known.fixed / layers
    sizes, used = random_spread(values, spread)
    scaled = values[:, used] / sizes[used]
    level = np.full(prior.shape, _LEVEL / layers**2)
    return scaled @ scaled.T + _RESIDUAL / float(np.sum(spread * prior)) * prior + level, _NOISE


def learning_curve(
    measurements: Measurements,
    encoding: Encoding,
    basis: Sequence[SpaceCosts],
    repeats: int = 3,
    *,
    counts: Counts | None = None,
) -> list[tuple[int, float]]:
    """Compute the cross-validated error with half of the measurements and with all of them.

    Args:
        measurements: Whole networks and their latencies.
        encoding: Encoding of the candidates.
        basis: Basis tables applied to the space of the measurements.
        repeats: Number of random halves over which the error is averaged.
        counts: What each candidate computes.

    Returns:
        Pairs of the number of networks and their mean relative error. The half is omitted if it is too small for a fit.
    """
    n = len(measurements)
    generator = np.random.default_rng(0)
    found = []
    half = n // 2
    if half >= LEAST_NETWORKS:
        errors = [
            left_out_error(measurements.rows(generator.permutation(n)[:half]), encoding, basis, counts)
            for _ in range(repeats)
        ]
        found.append((half, float(np.mean(errors))))
    found.append((n, left_out_error(measurements, encoding, basis, counts)))
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
