"""Fit of a latency table to whole-network latencies, for devices on which single operators cannot be timed.

With many measurements, the table is fitted by regression (`regression.py`). With few measurements, tables of other
devices serve as a basis. The latencies of the new device are modelled as a non-negative mixture of the latencies that
the basis predicts, plus a residual with the same prior as in the regression. The mixture is fitted by robust least
squares of relative errors. Cross-validation chooses the strength of the residual, which is often 0.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ...errors import InputError, LatencyTableError
from ..architectures_file import Measurements
from ..arrays import FloatArray, spearman
from ..costs import SpaceCosts
from ..device import Device
from ..entries import Choice
from ..table import Calibration, LatencyTable, OperatorCost
from .regression import regress, student_weights
from .similarity import kernels

LEAST_NETWORKS = 5
_SHRINKAGES = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0)
_FOLDS = 10
_MOST_FOR_MIXTURE = 500
_REWEIGHTINGS = 8
_LEAST_NOISE = 0.005  # smallest relative measurement error that is plausible


@dataclass(frozen=True)
class Fit:
    """A fitted table with measures of its reliability.

    Attributes:
        table: Fitted table.
        mean_relative_error: Mean relative error of the predictions of networks left out in cross-validation.
        spearman: Rank correlation of predicted and measured latencies of networks left out in cross-validation.
        networks: Number of networks to which the table was fitted.
        mixture: Share of each basis table in the mean latency, by device name; empty without a basis.
        shrinkage: Variance of the residual on the mixture, in units of the noise variance; `None` without a basis.
        warnings: Reasons for the user to distrust the table, in sentences.
    """

    table: LatencyTable
    mean_relative_error: float
    spearman: float
    networks: int
    mixture: Mapping[str, float]
    shrinkage: float | None
    warnings: tuple[str, ...]


class Encoding:
    """One-hot encoding of the candidates of all layers; `m` is their total number.

    Args:
        candidates: Candidate names of each layer, by layer label.
    """

    def __init__(self, candidates: Mapping[str, Sequence[str]]) -> None:
        self.choices = [Choice(label, name) for label, names in candidates.items() for name in names]
        self.candidates = {label: tuple(names) for label, names in candidates.items()}

    def features(self, layers: Mapping[str, np.ndarray[Any, Any]]) -> FloatArray:
        """Encode `n` networks.

        Args:
            layers: Names of the chosen candidates, shape (n,), by layer label.

        Returns:
            One-hot choices, shape (n, m).
        """
        return np.concatenate(
            [np.asarray(layers[k])[:, None] == np.array(names) for k, names in self.candidates.items()], axis=1
        ).astype(np.float64)

    def costs(self, values: FloatArray, intercept: float) -> SpaceCosts:
        """Convert the costs of all choices to the costs of a space.

        The cost of each layer's cheapest candidate is moved to the fixed cost, so that this candidate costs 0.

        Args:
            values: Cost of each choice, shape (m,).
            intercept: Cost that every network has.
        """
        fixed, layers, start = intercept, {}, 0
        for label, names in self.candidates.items():
            part = values[start : start + len(names)]
            start += len(names)
            fixed += float(part.min())
            layers[label] = tuple((part - part.min()).tolist())
        return SpaceCosts(fixed, self.candidates, layers)


@dataclass(frozen=True)
class _Solution:
    costs: SpaceCosts
    latency_ms: FloatArray
    left_out: FloatArray
    mixture: FloatArray
    shrinkage: float | None


def fit_table(
    measurements: Measurements,
    basis: Sequence[LatencyTable] = (),
    *,
    basis_costs: Sequence[SpaceCosts] | None = None,
    device: str = "not named",
    space: str | None = None,
) -> Fit:
    """Fit a table to the latencies of whole networks.

    Args:
        measurements: Whole networks and their latencies.
        basis: Tables of other devices for the same layers.
        basis_costs: Basis tables applied to the space of the measurements, in the order of `basis`. Defaults to the
            layers that the tables' own entries name.
        device: Name of the measured device.
        space: Name of the space, if this package describes it.

    Raises:
        InputError: There are fewer than 5 networks.
        LatencyTableError: A basis table is not in milliseconds, has other layers than the measurements, lacks a
            measured candidate, or has entries for operators while `basis_costs` is not given.
    """
    if len(measurements) < LEAST_NETWORKS:
        raise InputError(
            f"{len(measurements)} measurements are too few for a table: at least {LEAST_NETWORKS} with --basis, and "
            "about as many as there are candidates in all layers without"
        )
    costs = [table.own_costs() for table in basis] if basis_costs is None else list(basis_costs)
    candidates = _candidates(measurements, costs, basis)
    encoding = Encoding(candidates)
    solution = _solve(measurements, encoding, costs)
    error = float(np.mean(np.abs(solution.left_out)))
    rank = spearman(solution.latency_ms * (1.0 - solution.left_out), solution.latency_ms)
    shares = {
        _unique(table, i, basis): float(share)
        for i, (table, share) in enumerate(zip(basis, solution.mixture, strict=True))
        if share > 0
    }
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
        + (f" on a basis of {len(basis)} devices" if basis else ""),
    )
    return Fit(
        table,
        error,
        rank,
        len(measurements),
        shares,
        solution.shrinkage,
        _warnings(measurements, encoding, bool(basis), error, rank),
    )


def left_out_error(measurements: Measurements, encoding: Encoding, costs: Sequence[SpaceCosts]) -> float:
    """Compute the cross-validated mean relative error of a fit. `costs` are the basis tables applied to the space."""
    return float(np.mean(np.abs(_solve(measurements, encoding, costs).left_out)))


def _solve(measurements: Measurements, encoding: Encoding, basis: Sequence[SpaceCosts]) -> _Solution:
    if basis and len(measurements) > _MOST_FOR_MIXTURE:  # more are not needed, and time is cubic in them
        measurements = measurements.rows(np.random.default_rng(0).permutation(len(measurements))[:_MOST_FOR_MIXTURE])
    features, latency_ms = encoding.features(measurements.layers), measurements.latency_ms
    if not basis:
        found = regress(features, latency_ms, kernels(encoding.choices))
        return _Solution(encoding.costs(found.costs, found.intercept), latency_ms, found.left_out, np.zeros(0), None)
    tables = np.stack([costs.of_many(measurements.layers) for costs in basis], axis=1)  # (n, devices)
    prior = sum(kernel / np.mean(np.diag(kernel)) for kernel in kernels(encoding.choices))
    gram = features @ prior @ features.T
    size = float(np.mean(np.diag(gram)))
    gram = gram / size
    left_out = {strength: _left_out(tables, gram, latency_ms, strength) for strength in _SHRINKAGES}
    errors = {strength: float(np.mean(np.abs(values))) for strength, values in left_out.items()}
    # Use the residual only if it clearly reduces the error: with ten networks, a small reduction can be chance.
    best = min(_SHRINKAGES, key=errors.__getitem__)
    bad = errors[0.0] > _LEAST_NOISE
    shrinkage = best if bad and errors[best] < (1.0 - 1.0 / np.sqrt(len(measurements))) * errors[0.0] else 0.0
    mixture, dual = _mix(tables, gram, latency_ms, shrinkage)
    columns = [[c.layers[k][c.candidates[k].index(n)] for k, names in encoding.candidates.items() for n in names]
               for c in basis]  # fmt: skip
    values = np.array(columns).T @ mixture + shrinkage / size * (prior @ features.T @ dual)
    fixed = float(mixture @ np.array([c.fixed for c in basis]))
    shares = mixture * tables.mean(axis=0)
    shares = shares / max(float(shares.sum()), 1e-12)
    return _Solution(encoding.costs(values, fixed), latency_ms, left_out[shrinkage], shares, shrinkage)


def _mix(
    tables: FloatArray, gram: FloatArray, latency_ms: FloatArray, shrinkage: float
) -> tuple[FloatArray, FloatArray]:
    """Fit a non-negative mixture of tables plus a residual by robust least squares.

    Minimises (y - T w)ᵀ V⁻¹ (y - T w) over w ≥ 0, with V = noise + shrinkage · gram. This is generalised least squares
    with a Gaussian process as the residual (Rasmussen and Williams 2006, section 2.7).

    Args:
        tables: Latencies T of the networks predicted by the basis tables, shape (n, devices).
        gram: Covariance of the residual between networks, scaled to a mean variance of 1, shape (n, n).
        latency_ms: Measured latencies y, shape (n,).
        shrinkage: Variance of the residual in units of the noise variance.

    Returns:
        Weights w, shape (devices,), and V⁻¹ (y - T w), shape (n,).
    """
    level = float(np.median(latency_ms))
    weights = np.ones(len(latency_ms))
    for _ in range(_REWEIGHTINGS):
        factor = np.linalg.cholesky(np.diag((latency_ms / level) ** 2 / weights) + shrinkage * gram)
        mixture, _ = nnls(np.linalg.solve(factor, tables), np.linalg.solve(factor, latency_ms))
        rest = latency_ms - tables @ mixture
        dual = np.linalg.solve(factor.T, np.linalg.solve(factor, rest))
        weights = student_weights((rest - shrinkage * gram @ dual) / latency_ms, floor=_LEAST_NOISE)
    return mixture, dual


def _left_out(tables: FloatArray, gram: FloatArray, latency_ms: FloatArray, shrinkage: float) -> FloatArray:
    """Cross-validate the mixture: relative residuals of the networks left out of each fold, shape (n,).

    Up to 20 networks, each network is a fold of its own; beyond, there are 10 folds. The arguments are those of `_mix`.
    """
    n = len(latency_ms)
    fold = np.random.default_rng(0).permutation(n) % (n if n <= 2 * _FOLDS else _FOLDS)
    residuals = np.empty(n)
    for number in range(int(fold.max()) + 1):
        out, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        mixture, dual = _mix(tables[rest], gram[np.ix_(rest, rest)], latency_ms[rest], shrinkage)
        predicted = tables[out] @ mixture + shrinkage * gram[np.ix_(out, rest)] @ dual
        residuals[out] = (latency_ms[out] - predicted) / latency_ms[out]
    return residuals


def _candidates(
    measurements: Measurements, costs: Sequence[SpaceCosts], basis: Sequence[LatencyTable]
) -> dict[str, tuple[str, ...]]:
    """Return the candidates of each layer: those common to all basis tables, or without a basis the measured ones."""
    measured = measurements.candidates
    if not costs:
        return measured
    for table, cost in zip(basis, costs, strict=True):
        name = f"the basis table of {table.device.name} ({table.backend})"
        if table.unit != "ms":
            raise LatencyTableError(f"{name} is in {table.unit}, not in ms")
        missing, surplus = sorted(set(measured) - set(cost.layers)), sorted(set(cost.layers) - set(measured))
        if missing or surplus:
            raise LatencyTableError(
                f"{name} is of another space: it lacks the layers {missing or 'none'} and has {surplus or 'none'} that "
                "the measurements do not"
            )
        for label, names in measured.items():
            lacking = sorted(set(names) - set(cost.candidates[label]))
            if lacking:
                raise LatencyTableError(f"{name} lacks candidate(s) {', '.join(lacking)} of layer {label}")
    return {
        label: tuple(name for name in costs[0].candidates[label] if all(name in c.candidates[label] for c in costs))
        for label in measured
    }


def _warnings(
    measurements: Measurements, encoding: Encoding, with_basis: bool, error: float, rank: float
) -> tuple[str, ...]:
    """Return the reasons for the user to distrust the table."""
    found = []
    n, freedom = len(measurements), sum(len(names) - 1 for names in encoding.candidates.values())
    if not with_basis and n < freedom:
        found.append(
            f"{n} networks for {freedom} unknown costs: the table relies on the similarity of candidates with "
            f"similar names; measure about {2 * freedom}, or give tables of other devices with --basis"
        )
    rare = [
        str(choice) for choice in encoding.choices if not np.any(measurements.layers[choice.layer] == choice.candidate)
    ]
    if rare:
        shown = ", ".join(rare[:3]) + (f" and {len(rare) - 3} more" if len(rare) > 3 else "")
        found.append(f"never measured: {shown}")
    # A correlation from few networks is uncertain by about 1 / sqrt(n - 3).
    if not rank > 2.0 / np.sqrt(max(n - 3, 1)):
        found.append(
            f"the data does not support a table: networks left out are ranked no better than by chance "
            f"(Spearman {rank:.2f} of {n})"
        )
    elif error > 0.1 or rank < 0.7:
        found.append(
            f"predictions of networks left out are poor ({100 * error:.0f} % error, Spearman {rank:.2f}): is the "
            "device quiet, and does each row hold the median of many runs?"
        )
    return tuple(found)


def _unique(table: LatencyTable, index: int, basis: Sequence[LatencyTable]) -> str:
    name = table.device.name
    return name if [t.device.name for t in basis].count(name) == 1 else f"{name} #{index + 1}"
