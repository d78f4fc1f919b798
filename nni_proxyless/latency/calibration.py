"""From the sum of operators to the latency of a network: a scale, and an offset where networks call for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sampling import FloatArray
from .table import Calibration


def fit_calibration(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration:
    """Fit measured ≈ scale · sum + offset by least squares of relative errors.

    The offset is kept only if it predicts networks that were left out of the fit better than the scale alone does:
    with few networks an offset often fits noise, and would mislead at the fast end of the space.

    Args:
        sums_ms: Plain sums of operators of each network, in milliseconds.
        measured_ms: Measured latencies of the same networks, in milliseconds.

    Returns:
        The fit, with its mean relative error on the networks it was fitted to.
    """
    x, y = np.asarray(sums_ms, dtype=np.float64), np.asarray(measured_ms, dtype=np.float64)
    scale, offset = _fit(x, y, with_offset=False)
    if len(x) >= 4 and np.ptp(x) > 0:
        slope, constant = _fit(x, y, with_offset=True)
        stays_positive = slope > 0 and slope * x.min() + constant > 0
        if stays_positive and _left_out_error(x, y, True) < 0.9 * _left_out_error(x, y, False):
            scale, offset = slope, constant
    error = float(np.mean(np.abs(scale * x + offset - y) / y))
    return Calibration(scale, offset, len(x), error)


def _fit(x: FloatArray, y: FloatArray, with_offset: bool) -> tuple[float, float]:
    """Minimise Σ ((scale · x + offset - y) / y)²."""
    columns = [x / y, 1.0 / y] if with_offset else [x / y]
    solution, *_ = np.linalg.lstsq(np.stack(columns, axis=1), np.ones_like(y), rcond=None)
    return float(solution[0]), float(solution[1]) if with_offset else 0.0


def _left_out_error(x: FloatArray, y: FloatArray, with_offset: bool) -> float:
    """Mean relative error of each network under the fit to all others."""
    errors = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        scale, offset = _fit(x[others], y[others], with_offset)
        errors.append(abs(scale * x[i] + offset - y[i]) / y[i])
    return float(np.mean(errors))
