"""Regularised regression of candidates' costs on whole-network latencies.

The model is y = b + F θ + noise. F holds the one-hot choices of the networks, θ ~ N(0, Σ_j s_j K_j) their costs
(`similarity.py`), and the standard deviation of the noise is proportional to y.

Cross-validation chooses the strengths s_j and the noise: they minimise the mean squared relative error of each network
predicted from all others. For this model the leave-one-out residual has the closed form (C⁻¹ r)_i / (C⁻¹)_ii, with the
covariance C of the centred latencies r (Rasmussen and Williams 2006, eq. 5.12).

The regression is robust, because a machine is occasionally slow but never fast. Networks with much larger residuals
than the others get less weight: the weights are those of Student's t distribution with four degrees of freedom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from ..arrays import FloatArray

_FREEDOM = 4.0
_REWEIGHTINGS = 4
_NETWORKS_FOR_STRENGTHS = 500
_INTERCEPT = 10.0  # prior variance of b relative to the squared median latency: practically free


@dataclass(frozen=True)
class Regression:
    """Result of the regression.

    Attributes:
        costs: Cost of each choice in milliseconds, shape (m,).
        intercept: Cost that every network has, in milliseconds.
        left_out: Leave-one-out residuals: (measured - predicted) / measured of each network predicted from all others,
            shape (n,).
        covariance: Posterior covariance of the costs and the intercept, shape (m + 1, m + 1), in ms². Its scale is such
            that the squared leave-one-out residuals are as large as the model says.
        noise: Standard deviation of the noise, relative to the latency.
    """

    costs: FloatArray
    intercept: float
    left_out: FloatArray
    covariance: FloatArray
    noise: float


def regress(features: FloatArray, latency_ms: FloatArray, priors: Sequence[FloatArray]) -> Regression:
    """Fit the costs of all choices to the latencies of networks.

    Args:
        features: One-hot choices F, shape (n, m).
        latency_ms: Measured latencies y in milliseconds, shape (n,).
        priors: Kernels K_j, each of shape (m, m).
    """
    level = float(np.median(latency_ms))
    residual, relative = (latency_ms - level) / level, latency_ms / level
    # A few hundred networks determine the dozen strengths, and the time is cubic in the number of networks.
    some = np.random.default_rng(0).permutation(len(latency_ms))[:_NETWORKS_FOR_STRENGTHS]
    projected = [features[some] @ prior @ features[some].T for prior in priors]
    sizes = [float(np.mean(np.diag(matrix))) or 1.0 for matrix in projected]
    grams = [matrix / size for matrix, size in zip(projected, sizes, strict=True)]
    variance = max(float(np.var(residual)), 1e-8)
    strengths = np.log(np.array([0.1 * variance] + [variance / len(grams)] * len(grams)))
    weights = np.ones(len(latency_ms))
    for round_number in range(_REWEIGHTINGS + 1):
        importance = weights / relative**2
        parts = [np.diag(1.0 / importance[some]), *grams]
        strengths = _strengths(parts, residual[some], importance[some], strengths, variance)
        noise, *parts_of_prior = np.exp(strengths)
        covariance = sum(s / size * prior for s, size, prior in zip(parts_of_prior, sizes, priors, strict=True))
        costs, intercept, left_out = _solve(features, residual, importance / noise, np.asarray(covariance))
        left_out = left_out / relative
        if round_number < _REWEIGHTINGS:
            weights = student_weights(left_out - np.median(left_out))
    posterior = _posterior(features, importance / noise, np.asarray(covariance))
    design = np.column_stack([features, np.ones(len(features))])
    # A linear smoother predicts a network from all others with the variance of the noise divided by 1 - h, where h is
    # its leverage: the variance of its prediction divided by that of its noise.
    leverage = np.einsum("ij,jk,ik->i", design, posterior, design) * importance / noise
    expected = noise * (1.0 + leverage / (weights * np.maximum(1.0 - leverage, 1e-9)))
    scale = float(np.mean(left_out**2 / expected))
    return Regression(
        level * costs, level * (1.0 + intercept), left_out, scale * level**2 * posterior, float(np.sqrt(scale * noise))
    )


def _solve(
    features: FloatArray, residual: FloatArray, precision: FloatArray, covariance: FloatArray
) -> tuple[FloatArray, float, FloatArray]:
    """Compute the posterior mean of costs and intercept, and the leave-one-out residuals, for given strengths.

    With θ = A z, where A Aᵀ is the covariance of θ, z has a standard normal prior. The posterior mean is therefore a
    ridge regression on G = [F A, √v], with v the prior variance of the intercept. The leave-one-out residuals are
    e_i / (1 - h_i), with the residuals e and the diagonal h of the hat matrix. The time grows with n m² instead of n³.

    Args:
        features: One-hot choices F, shape (n, m).
        residual: Latencies minus their median, divided by the median, shape (n,).
        precision: Inverse noise variance of each network, shape (n,).
        covariance: Prior covariance of θ, shape (m, m).

    Returns:
        Costs, shape (m,), intercept, and leave-one-out residuals, shape (n,), all divided by the median latency.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    design = np.concatenate([features @ root, np.full((len(features), 1), np.sqrt(_INTERCEPT))], axis=1)
    weighted = design * precision[:, None]
    inverse = np.linalg.inv(design.T @ weighted + np.eye(design.shape[1]))
    z = inverse @ (weighted.T @ residual)
    leverage = np.einsum("ij,ij->i", weighted @ inverse, design)
    left_out = (residual - design @ z) / np.maximum(1.0 - leverage, 1e-9)
    return root @ z[:-1], float(np.sqrt(_INTERCEPT) * z[-1]), left_out


def _posterior(features: FloatArray, precision: FloatArray, covariance: FloatArray) -> FloatArray:
    """Compute the posterior covariance of the costs and the intercept, shape (m + 1, m + 1); see `_solve`."""
    values, vectors = np.linalg.eigh(np.pad(covariance, (0, 1)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    root[-1] = 0.0
    root = np.column_stack([root, np.append(np.zeros(len(covariance)), np.sqrt(_INTERCEPT))])
    design = np.column_stack([features, np.ones(len(features))]) @ root
    inner = design.T @ (design * precision[:, None]) + np.eye(design.shape[1])
    return np.asarray(root @ np.linalg.solve(inner, root.T))


def student_weights(residuals: FloatArray, floor: float = 1e-6) -> FloatArray:
    """Compute the weights of robust regression: (ν + 1) / (ν + (e / σ)²), with σ estimated by the median of |e|.

    Args:
        residuals: Residuals e, shape (n,).
        floor: Lower bound of σ.

    Returns:
        Weights, shape (n,).
    """
    scale = max(1.4826 * float(np.median(np.abs(residuals))), floor)
    return np.asarray((_FREEDOM + 1.0) / (_FREEDOM + (residuals / scale) ** 2))


def _covariance(parts: Sequence[FloatArray], log_strengths: FloatArray) -> FloatArray:
    return np.asarray(sum(s * part for s, part in zip(np.exp(log_strengths), parts, strict=True)) + _INTERCEPT)


def _strengths(
    parts: Sequence[FloatArray], residual: FloatArray, importance: FloatArray, start: FloatArray, variance: float
) -> FloatArray:
    """Find the strengths that minimise Σ importance · (leave-one-out residual)².

    Args:
        parts: Covariance of the noise, then of each prior, between networks, each of shape (n, n).
        residual: Latencies minus their median, divided by the median, shape (n,).
        importance: Weight of each network, shape (n,).
        start: Initial logarithms of the strengths, one for each part.
        variance: Variance of `residual`; scales the bounds of the strengths.

    Returns:
        Logarithms of the strengths, one for each part.
    """

    def left_out_error(log_strengths: FloatArray) -> tuple[float, FloatArray]:
        inverse = np.linalg.inv(_covariance(parts, log_strengths))
        solution, diagonal = inverse @ residual, np.diag(inverse)
        error = solution / diagonal
        # A change dC = s_j K_j of C changes C⁻¹ r by -C⁻¹ dC C⁻¹ r, and the diagonal of C⁻¹ by -diag(C⁻¹ dC C⁻¹).
        slope = 2.0 * error * importance / diagonal
        inner = inverse @ slope
        outer = (inverse * (slope * error)) @ inverse
        gradient = [
            s * (np.sum(outer * part) - inner @ part @ solution)
            for s, part in zip(np.exp(log_strengths), parts, strict=True)
        ]
        scale = 100.0 / len(residual)
        return scale * float(np.sum(importance * error**2)), scale * np.array(gradient)

    bound = (np.log(1e-6 * variance), np.log(1e2 * variance))
    found = minimize(
        left_out_error, start, jac=True, method="L-BFGS-B", bounds=[bound] * len(start), options={"maxiter": 40}
    )
    return np.asarray(found.x)
