"""From operators measured alone to the latency of a network.

With ONNX Runtime an operator alone is not what it is inside a network. Alone, its input and output are converted from
and to the blocked layout that convolutions compute in, which a network does at its two ends only; and its weights stay
in the fastest cache, from which a network's next layers drive them out. Both are told from whole networks:
`fit_corrections`. What is left is a scale, and an offset where networks call for one: `fit_calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .arrays import FloatArray
from .table import Calibration

# A network is measured to 1 %; the corrections are of the order of 10 % of its latency.
_NOISE, _SIZE = 0.01, 0.1
CORRECTIONS_FROM = 8


def fit_corrections(
    sums_ms: Sequence[float], amounts: npt.ArrayLike, measured_ms: Sequence[float]
) -> tuple[float, ...]:
    """What each unit of some amounts costs inside a network, beyond the operators alone.

    measured ≈ scale · (sum + amounts · corrections), by least squares of relative errors with a Gaussian prior on the
    corrections (ridge regression): each is 0 ± 10 % of the mean latency, a measured network is right to 1 %.

    Args:
        sums_ms: Plain sums of operators of each network, in milliseconds, shape (networks,).
        amounts: What each network has of each, shape (networks, amounts), such as parameters.
        measured_ms: Measured latencies of the same networks, in milliseconds, shape (networks,).

    Returns:
        Milliseconds for each unit of each amount, negative ones included; zeros for fewer than 8 networks.
    """
    x, y, amount = np.asarray(sums_ms, float), np.asarray(measured_ms, float), np.asarray(amounts, float)
    none: tuple[float, ...] = (0.0,) * int(amount.shape[1])
    if len(x) < CORRECTIONS_FROM:
        return none
    columns = np.column_stack([x, amount])
    scale, *parts = _ridge(columns, y)
    if scale <= 0:
        return none
    return tuple(float(part / scale) for part in parts)


def _ridge(columns: FloatArray, y: FloatArray) -> FloatArray:
    """Minimise Σ ((columns · w - y) / y)², all of w but the first with the prior."""
    typical = np.maximum(columns.mean(axis=0), 1e-12)
    ratios = columns / typical * (y.mean() / y)[:, None]  # all 1 for networks that are alike in everything
    strength = np.diag([0.0] + [(_NOISE / _SIZE) ** 2] * (columns.shape[1] - 1))
    parts = np.linalg.solve(ratios.T @ ratios + strength, ratios.sum(axis=0))
    solution: FloatArray = parts * y.mean() / typical
    return solution


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
