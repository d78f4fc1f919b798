"""Fit of costs to few networks: a non-negative combination of known quantities, plus a residual.

The known quantities are basis tables of other devices, and counts of what each candidate computes. With the network
totals T of these quantities, the latencies of the new device are modelled as y = T w + residual + noise, with w ≥ 0.
The noise is proportional to y. Each quantity is scaled to a standard deviation of 1 over random networks, so that one
prior strength suits all quantities of a group: w_j ~ N(0, σ² / λ), truncated at 0. The residual is a Gaussian process
(`similarity.py`), and its variance is given in units of the noise variance σ².

Several settings of these strengths are fitted, from "basis only" to "counts practically unconstrained". Each is judged
by the root mean squared error e of the networks that are left out in cross-validation. The settings are averaged with
weights in proportion to p e⁻ⁿ, with the prior probability p of the setting and the likelihood e⁻ⁿ of normally
distributed errors (pseudo-Bayesian model averaging, Yao, Vehtari, Simpson and Gelman 2018). Cross-validation thus
determines the weight of each group, and a setting that happens to fit a few networks well does not decide alone. All
settings are linear in the choices, so their average is a table too.

The prior probability of the basis alone is larger if its error is about as small as that of measurements. The basis
then spans the device, and counts could only fit noise. If counts still fit much better, the likelihood outweighs it.

The covariance of the costs is that of the average of Gaussian posteriors, each restricted to the quantities with
w_j > 0, plus the differences between settings. The scale σ² makes the squared errors of the left-out networks as large
as the model says (Rasmussen and Williams 2006, eq. 5.12 for the variances of left-out networks).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from ..arrays import FloatArray
from .regression import student_weights

IntArray = npt.NDArray[np.intp]
BoolArray = npt.NDArray[np.bool_]

_COUNTS = {1e-6: 0.03, 0.1: 1.0, 1.0: 3.0, 10.0: 1.0}  # prior strengths λ of counts, and their prior probabilities
_WITHOUT_COUNTS = 1.0  # prior probability of settings without counts
_SPANNED, _SPANS = 0.03, 100.0  # error of a basis that spans the device, and the prior odds that it then gets
_BASIS = 1e-6  # prior strength of basis tables: practically free
_WEAKEST = 1e-3  # smallest prior strength in covariances, which would otherwise lose their digits
_CONSTANT = 0.03  # largest prior strength of the constant, whose unit is the median latency
_RESIDUALS = (0.0, 0.1, 1.0)  # variances of the residual in units of σ²
_FOLDS = 10
_REWEIGHTINGS = 4
_LEAST_NOISE = 0.005  # smallest relative measurement error that is plausible
_LEAST_ERROR = 1e-6  # errors below are taken as equal
_IGNORED = 1e-3  # settings with less weight do not count


@dataclass(frozen=True)
class Quantities:
    """Known quantities that may explain the latency: basis tables first, then counts.

    Attributes:
        of_choices: Quantities of each choice, shape (m, p).
        fixed: Quantities that every network has in addition, shape (p,).
        basis: Number of basis tables.
    """

    of_choices: FloatArray
    fixed: FloatArray
    basis: int


@dataclass(frozen=True)
class Blend:
    """Result of the fit.

    Attributes:
        costs: Cost of each choice in milliseconds, shape (m,).
        intercept: Cost that every network has, in milliseconds.
        left_out: Relative residuals of the networks that are left out in cross-validation, shape (n,).
        shares: Part of each quantity in the mean latency, shape (p,).
        residual: Standard deviation of the residual over random networks, relative to the mean latency.
        covariance: Covariance of the costs and the intercept, shape (m + 1, m + 1), in ms².
        noise: Standard deviation of the noise, relative to the latency.
    """

    costs: FloatArray
    intercept: float
    left_out: FloatArray
    shares: FloatArray
    residual: float
    covariance: FloatArray
    noise: float


@dataclass(frozen=True)
class _Setting:
    """Scaled problem with given strengths. The last row of `quantities` belongs to the intercept."""

    columns: IntArray  # (q,), the quantities that the setting uses
    quantities: FloatArray  # (m + 1, q)
    totals: FloatArray  # (n, q)
    strengths: FloatArray  # (q,)
    gram: FloatArray  # (n, n)
    residual: float
    probability: float = 1.0
    basis_only: bool = False


@dataclass(frozen=True)
class _Fitted:
    setting: _Setting
    weights: FloatArray  # (q,)
    dual: FloatArray  # (n,)
    precision: FloatArray  # (n,)
    left_out: FloatArray  # (n,)


def blend(
    features: FloatArray, latency_ms: FloatArray, quantities: Quantities, prior: FloatArray, spread: FloatArray
) -> Blend:
    """Fit the costs of all choices to the latencies of networks.

    Args:
        features: One-hot choices of the networks, shape (n, m).
        latency_ms: Measured latencies in milliseconds, shape (n,).
        quantities: Known quantities of the choices.
        prior: Prior covariance of the residual between choices, shape (m, m).
        spread: Covariance of the one-hot choices of random networks, shape (m, m) (`Encoding.covariance`).
    """
    level = float(np.median(latency_ms))
    relative = latency_ms / level
    scale, used = random_spread(quantities.of_choices, spread)
    scaled = np.vstack([quantities.of_choices, quantities.fixed]) / np.where(used, scale, np.inf)  # (m + 1, p)
    scaled = np.column_stack([scaled, np.append(np.zeros(len(prior)), 1.0)])  # the constant comes last
    design = np.column_stack([features, np.ones(len(features))])
    size = float(np.sum(spread * prior))
    prior = np.pad(prior / size if size > 0 else np.zeros_like(prior), (0, 1))
    gram = design @ prior @ design.T
    fits = [
        _fit(
            _Setting(columns, scaled[:, columns], design @ scaled[:, columns], strengths, gram, residual, p, alone),
            relative,
        )
        for columns, strengths, residual, p, alone in _settings(used, quantities.basis)
    ]
    shares = _shares(fits, len(relative))
    kept = [(share, fitted) for share, fitted in zip(shares.tolist(), fits, strict=True) if share > 0]
    left_out = np.sum([share * fitted.left_out for share, fitted in kept], axis=0)
    rests = [fitted.setting.residual * (prior @ design.T @ fitted.dual) for _, fitted in kept]
    costs = [fitted.setting.quantities @ fitted.weights + rest for (_, fitted), rest in zip(kept, rests, strict=True)]
    mean, rest = (np.sum([share * x for (share, _), x in zip(kept, of, strict=True)], axis=0) for of in (costs, rests))
    weights = np.zeros(scaled.shape[1])
    covariance, expected = np.zeros_like(prior), np.zeros(len(relative))
    for share, fitted in kept:
        weights[fitted.setting.columns] += share * fitted.weights
        posterior, variances = _posterior(fitted, relative, design, prior)
        covariance += share * posterior
        expected += share * variances / relative**2
    between = np.sum([share * np.outer(x - mean, x - mean) for (share, _), x in zip(kept, costs, strict=True)], axis=0)
    n = len(relative)  # with few networks, σ² itself is uncertain: the error has a Student's t distribution
    noise = (n - 1.0) / (n - 3.0) * float(np.mean(left_out**2 / expected))  # σ²
    return Blend(
        level * mean[:-1],
        level * float(mean[-1]),
        left_out,
        (weights * (design @ scaled).mean(axis=0))[:-1] / relative.mean(),
        float(np.sqrt(max(rest[:-1] @ spread @ rest[:-1], 0.0)) / relative.mean()),
        level**2 * (noise * covariance + between),
        float(np.sqrt(noise)),
    )


def _shares(fits: Sequence[_Fitted], networks: int) -> FloatArray:
    """Compute the weights of the settings: prior probability times e⁻ⁿ, with the error e of networks left out."""
    errors = np.array([max(float(np.sqrt(np.mean(fitted.left_out**2))), _LEAST_ERROR) for fitted in fits])
    priors = np.array([fitted.setting.probability for fitted in fits])
    alone = np.array([fitted.setting.basis_only for fitted in fits])
    if alone.any():
        priors[alone] *= 1.0 + _SPANS * np.exp(-((errors[alone].min() / _SPANNED) ** 2))
    shares = priors * (errors.min() / errors) ** networks
    shares = np.where(shares > _IGNORED * shares.max(), shares, 0.0)
    return np.asarray(shares / shares.sum())


def random_spread(values: FloatArray, spread: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Compute the standard deviation of the network totals of quantities over random networks.

    Args:
        values: Quantities of the choices, shape (m, p).
        spread: Covariance of the one-hot choices of random networks, shape (m, m).

    Returns:
        Standard deviations, shape (p,), and whether they differ from 0, shape (p,).
    """
    scale = np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", values, spread, values), 0.0))
    return scale, scale > 1e-6 * np.maximum(np.abs(values).max(axis=0, initial=0.0), 1e-300)


def _settings(used: BoolArray, basis: int) -> Iterator[tuple[IntArray, FloatArray, float, float, bool]]:
    """List the settings.

    Returns:
        Quantities that are used, their strengths, variance of the residual, prior probability, and whether only basis
        tables are used.
    """
    tables, counts = np.flatnonzero(used[:basis]), basis + np.flatnonzero(used[basis:])
    groups: list[tuple[IntArray, float | None]] = []
    if len(counts) or not len(tables):
        groups += [(np.append(tables, counts), strength) for strength in _COUNTS]
    if len(tables):
        groups.append((tables, None))
    for (columns, strength), residual in itertools.product(groups, _RESIDUALS):
        strengths = np.where(columns < basis, _BASIS, strength or _BASIS)
        if strength is not None:  # counts do not tell what all networks share, basis tables do
            columns = np.append(columns, len(used))
            strengths = np.append(strengths, min(_CONSTANT, strength))
        probability = _WITHOUT_COUNTS if strength is None else _COUNTS[strength]
        yield columns, strengths, residual, probability, strength is None


def _fit(setting: _Setting, relative: FloatArray) -> _Fitted:
    """Fit by robust least squares of relative errors, and predict each network from the others.

    Up to 40 networks, each network is a fold of its own; beyond, there are 10 folds. All folds have the precision of
    the fit to all networks.

    Args:
        setting: Strengths and quantities.
        relative: Latencies divided by their median, shape (n,).
    """
    n = len(relative)
    everything = np.arange(n)
    precision = 1.0 / relative**2
    for number in range(_REWEIGHTINGS + 1):
        weights, dual = _solve(setting, relative, precision, everything)
        if number < _REWEIGHTINGS:
            fitted = setting.totals @ weights + setting.residual * setting.gram @ dual
            precision = student_weights((relative - fitted) / relative, floor=_LEAST_NOISE) / relative**2
    fold = everything if n <= 4 * _FOLDS else np.random.default_rng(0).permutation(n) % _FOLDS
    left_out = np.empty(n)
    for number in range(int(fold.max()) + 1):
        out, rest = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        some, dual_of_rest = _solve(setting, relative, precision, rest)
        predicted = setting.totals[out] @ some + setting.residual * setting.gram[np.ix_(out, rest)] @ dual_of_rest
        left_out[out] = (relative[out] - predicted) / relative[out]
    return _Fitted(setting, weights, dual, precision, left_out)


def _solve(
    setting: _Setting, relative: FloatArray, precision: FloatArray, rows: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Minimise (y - T w)ᵀ V⁻¹ (y - T w) + Σ λ w² over w ≥ 0, with V = noise + residual · gram.

    This is generalised least squares with a Gaussian process as the residual (Rasmussen and Williams 2006, section
    2.7).

    Returns:
        Weights w, shape (q,), and V⁻¹ (y - T w), shape (rows,).
    """
    y, totals = relative[rows], setting.totals[rows]
    variance = 1.0 / precision[rows]
    if setting.residual:
        factor = np.linalg.cholesky(np.diag(variance) + setting.residual * setting.gram[np.ix_(rows, rows)])
        whitened = np.linalg.solve(factor, np.column_stack([totals, y]))
    else:
        whitened = np.column_stack([totals, y]) / np.sqrt(variance)[:, None]
    ridge = np.diag(np.sqrt(setting.strengths))
    weights, _ = nnls(
        np.vstack([whitened[:, :-1], ridge]), np.append(whitened[:, -1], np.zeros(len(ridge))), maxiter=100 * len(ridge)
    )
    rest = whitened[:, -1] - whitened[:, :-1] @ weights
    dual = np.linalg.solve(factor.T, rest) if setting.residual else rest / np.sqrt(variance)
    return weights, dual


def _posterior(
    fitted: _Fitted, relative: FloatArray, design: FloatArray, prior: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Compute the posterior covariance of the costs, and the variances of networks predicted from all others.

    Returns:
        Covariance, shape (m + 1, m + 1), and variances including the noise, shape (n,), both in units of σ².
        The noise is that of a new network. Networks that the robust fit takes for outliers have no more of it, so that
        they widen the uncertainty.
    """
    setting, active = fitted.setting, fitted.weights > 0
    part = setting.quantities[:, active]
    before = part / np.maximum(setting.strengths[active], _WEAKEST) @ part.T + setting.residual * prior
    projected = design @ before
    inverse = np.linalg.inv(projected @ design.T + np.diag(1.0 / fitted.precision))
    variances = 1.0 / np.diag(inverse) - 1.0 / fitted.precision + relative**2
    return before - projected.T @ inverse @ projected, variances
