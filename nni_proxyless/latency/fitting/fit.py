"""Fit of a latency table to whole-network latencies, for devices on which single operators cannot be timed.

With many measurements and nothing else, the table is fitted by regression (`regression.py`). Tables of other devices,
and counts of what each candidate computes, make a few measurements enough (`few_shot.py`).
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np

from ...errors import InputError
from ..architectures_file import Measurements
from ..arrays import FloatArray, spearman
from ..costs import SpaceCosts
from ..counts import Counts
from ..device import Device
from ..entries import Choice
from ..judgement import with_verdict
from ..quality import Quality
from ..table import Calibration, LatencyTable, OperatorCost
from .checks import common_candidates, unique_name, warnings_of
from .encoding import Encoding
from .factor import low_rank
from .few_shot import Quantities, blend
from .regression import regress
from .similarity import kernels, residual_prior

LEAST_NETWORKS = 5
_MOST_FOR_BLEND = 500


@dataclass(frozen=True)
class Fit:
    """A fitted table with measures of its reliability.

    Attributes:
        table: Fitted table.
        mean_relative_error: Mean relative error of the predictions of networks left out in cross-validation.
        spearman: Rank correlation of predicted and measured latencies of networks left out in cross-validation.
        networks: Number of different networks to which the table was fitted.
        mixture: Share of each basis table in the mean latency, by device name; empty without a basis.
        counts: Share of each count in the mean latency, by name; empty without counts.
        residual: Standard deviation of what neither basis nor counts explain, over random networks, relative to the
            mean latency; `None` without basis and counts.
        warnings: Reasons for the user to distrust the table, in sentences.
    """

    table: LatencyTable
    mean_relative_error: float
    spearman: float
    networks: int
    mixture: Mapping[str, float]
    counts: Mapping[str, float]
    residual: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Solution:
    costs: SpaceCosts
    latency_ms: FloatArray
    left_out: FloatArray
    shares: FloatArray
    residual: float | None
    covariance: FloatArray
    noise: float


def fit_table(
    measurements: Measurements,
    basis: Sequence[LatencyTable] = (),
    *,
    basis_costs: Sequence[SpaceCosts] | None = None,
    counts: Counts | None = None,
    device: str = "not named",
    space: str | None = None,
) -> Fit:
    """Fit a table to the latencies of whole networks. If a network was measured more than once, its median is used.

    Args:
        measurements: Whole networks and their latencies.
        basis: Tables of other devices for the same layers.
        basis_costs: Basis tables applied to the space of the measurements, in the order of `basis`. Defaults to the
            layers that the tables' own entries name.
        counts: What each candidate computes: `counts_of_space`, `counts_of_model_space` or `read_counts`. The table
            then also has the candidates that were never measured. Without a basis, they are not used if more than 500
            networks, and twice as many as there are unknown costs, are measured: then the regression is as good.
        device: Name of the measured device.
        space: Name of the space, if this package describes it.

    Raises:
        InputError: There are fewer than 5 networks, or the counts are of other layers than the measurements or lack a
            measured candidate.
        LatencyTableError: A basis table is not in milliseconds, has other layers than the measurements, lacks a
            measured candidate, or has entries for operators while `basis_costs` is not given.
    """
    rows, measurements = len(measurements), measurements.distinct()
    costs = [table.own_costs() for table in basis] if basis_costs is None else list(basis_costs)
    encoding = Encoding(common_candidates(measurements, costs, basis, counts))
    if len(measurements) < LEAST_NETWORKS:
        different = f" of different networks, in {rows} rows," if len(measurements) < rows else ""
        raise InputError(
            f"{len(measurements)} measurements{different} are too few for a table: at least {LEAST_NETWORKS} with "
            "--basis or counts (--space, --counts), and about as many as there are candidates in all layers without"
        )
    if not costs and _enough(measurements, encoding):
        counts = None
    solution = _solve(measurements, encoding, costs, counts)
    error, level = float(np.mean(np.abs(solution.left_out))), float(np.median(solution.latency_ms))
    # Rounded, so that networks are equally fast if they differ by less than any device can show.
    measured = solution.latency_ms / level
    rank = spearman(np.round(measured * (1.0 - solution.left_out), 5), np.round(measured, 5))
    shares = solution.shares.tolist()
    mixture = {unique_name(table, i, basis): shares[i] for i, table in enumerate(basis) if shares[i] > 0}
    counted = {} if counts is None else dict(zip(counts.columns, shares[len(basis) :], strict=True))
    known = [f"{len(basis)} devices"] * bool(basis) + ["counts of operations"] * (counts is not None)
    table = LatencyTable(
        device=Device(device, "known by whole networks only", None),
        backend="fit",
        backend_version=version("nni-proxyless"),
        dtype="not known",
        batch=None,
        threads=None,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        operators={
            Choice(label, name): OperatorCost(cost, 0.0, max(1, int(np.sum(measurements.layers[label] == name))))
            for label, names in solution.costs.candidates.items()
            for name, cost in zip(names, solution.costs.layers[label], strict=True)
        },
        calibration=Calibration(1.0, solution.costs.fixed, len(measurements), error),
        space=space,
        source=f"fitted to {len(measurements)} whole networks"
        + (f" on a basis of {' and '.join(known)}" if known else ""),
        uncertainty=low_rank(solution.covariance, solution.noise, encoding),
        quality=Quality(rank_correlation=rank),
    )
    return Fit(
        with_verdict(table),
        error,
        rank,
        len(measurements),
        mixture,
        {name: share for name, share in counted.items() if share > 0},
        solution.residual,
        warnings_of(measurements, encoding, bool(basis) or counts is not None, solution.left_out, rank),
    )


def _enough(measurements: Measurements, encoding: Encoding) -> bool:
    """Whether the measurements determine the costs without counts. The regression then uses all of them."""
    freedom = sum(len(names) - 1 for names in encoding.candidates.values())
    return len(measurements) > max(_MOST_FOR_BLEND, 2 * freedom)


def left_out_error(
    measurements: Measurements, encoding: Encoding, costs: Sequence[SpaceCosts], counts: Counts | None = None
) -> float:
    """Compute the cross-validated mean relative error of a fit. `costs` are the basis tables applied to the space."""
    if not costs and _enough(measurements, encoding):
        counts = None
    return float(np.mean(np.abs(_solve(measurements, encoding, costs, counts).left_out)))


def known_quantities(encoding: Encoding, costs: Sequence[SpaceCosts], counts: Counts | None) -> Quantities:
    """Collect basis tables and counts as quantities of each choice.

    Args:
        encoding: Encoding of the candidates.
        costs: Basis tables applied to the space.
        counts: What each candidate computes.
    """
    columns = [
        [c.layers[k][list(c.candidates[k]).index(n)] for k, names in encoding.candidates.items() for n in names]
        for c in costs
    ]
    tables = np.array(columns, dtype=np.float64).reshape(len(costs), len(encoding.choices)).T
    fixed = np.array([c.fixed for c in costs])
    if counts is None:
        return Quantities(tables, fixed, len(costs))
    return Quantities(
        np.column_stack([tables, counts.of_choices(encoding.choices)]), np.append(fixed, counts.fixed), len(costs)
    )


def _solve(
    measurements: Measurements, encoding: Encoding, basis: Sequence[SpaceCosts], counts: Counts | None
) -> _Solution:
    informed = bool(basis) or counts is not None
    if informed and len(measurements) > _MOST_FOR_BLEND:  # more are not needed, and time is cubic in them
        measurements = measurements.rows(np.random.default_rng(0).permutation(len(measurements))[:_MOST_FOR_BLEND])
    features, latency_ms = encoding.features(measurements.layers), measurements.latency_ms
    if not informed:
        found = regress(features, latency_ms, kernels(encoding.choices))
        costs, shares, residual = encoding.costs(found.costs, found.intercept), np.zeros(0), None
        return _Solution(costs, latency_ms, found.left_out, shares, residual, found.covariance, found.noise)
    quantities = known_quantities(encoding, basis, counts)
    blended = blend(features, latency_ms, quantities, residual_prior(encoding.choices), encoding.covariance())
    return _Solution(
        encoding.costs(blended.costs, blended.intercept),
        latency_ms,
        blended.left_out,
        blended.shares,
        blended.residual,
        blended.covariance,
        blended.noise,
    )
