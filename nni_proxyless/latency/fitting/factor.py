"""Compression of the covariance of costs to a factor of low rank that a table can hold."""

from __future__ import annotations

import numpy as np

from ..arrays import FloatArray
from ..uncertainty import Uncertainty
from .encoding import Encoding

_KEPT = 0.98
_RANK = 8
_DIGITS = 3


def low_rank(covariance: FloatArray, noise: float, encoding: Encoding) -> Uncertainty:
    """Approximate the covariance Σ of costs by U Uᵀ, as well as possible for the predictions of random networks.

    With Σ = A Aᵀ and the second moments M of the codes of random networks, the mean variance of their predictions is
    the trace of Aᵀ M A. U is A times the leading eigenvectors of this matrix. They are kept until they explain 98 % of
    the trace, 8 at most. U is then scaled up so that the mean variance of random networks is exact.

    Args:
        covariance: Covariance of the costs and the intercept, shape (m + 1, m + 1), in ms².
        noise: Standard deviation of the noise, relative to the latency.
        encoding: Encoding of the candidates.
    """
    mean = np.append(encoding.mean(), 1.0)
    moments = np.outer(mean, mean)
    moments[:-1, :-1] += encoding.covariance()
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))  # Σ = root rootᵀ
    # The eigenvectors of rootᵀ M root rotate the columns of the root so that their parts of the mean variance fall.
    parts, rotation = np.linalg.eigh(root.T @ moments @ root)
    parts, rotation = np.maximum(parts[::-1], 0.0), rotation[:, ::-1]
    total = float(parts.sum())
    if total <= 0.0:
        return Uncertainty(noise, (), dict.fromkeys(encoding.choices, ()))
    rank = min(_RANK, int(np.searchsorted(np.cumsum(parts) / total, _KEPT)) + 1)
    factor = root @ rotation[:, :rank] * np.sqrt(total / parts[:rank].sum())
    rows = [tuple(float(f"{value:.{_DIGITS}g}") for value in row) for row in factor.tolist()]
    return Uncertainty(float(f"{noise:.{_DIGITS}g}"), rows[-1], dict(zip(encoding.choices, rows[:-1], strict=True)))
