"""Calibration: from the latencies of operators measured alone to the latency of a network.

With ONNX Runtime, OpenVINO, MNN and ncnn, an operator that runs alone differs from the same operator inside a network
in two ways:

* Its input and output are converted from and to the blocked memory layout that convolutions use. A network converts
  only its first input and its last output.
* Its weights stay in the fastest cache. In a network, the following layers evict them.

`fit_corrections` estimates both effects from measured networks. `fit_calibration` then fits a scale, and an offset if
the measured networks justify one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..network.operators import Operator
from ..network.space_spec import SpaceSpec
from .arrays import FloatArray, spearman
from .judgement import RANK_DOUBTFUL, rank_correlation, with_verdict
from .quality import Quality
from .table import Calibration, LatencyTable

# Relative measurement error of a network, and prior size of a correction relative to a network's latency.
_NOISE, _SIZE = 0.01, 0.1
CORRECTIONS_FROM = 8
# Backends and number formats with which an operator measured alone needs corrections (calibration.py): they convert the
# memory layout of its input and output. PyTorch does not, and its predictions were worse with corrections. Corrections
# have not been tried for int8.
_CORRECTED = tuple((backend, "float32") for backend in ("onnxruntime", "openvino", "mnn", "ncnn"))
_MIN_SHARE = 0.2  # smallest corrected cost of an operator, as a share of its measured cost


def fit_corrections(
    sums_ms: Sequence[float], amounts: npt.ArrayLike, measured_ms: Sequence[float]
) -> tuple[float, ...]:
    """Estimate how much latency some quantities add inside a network, beyond the operators measured alone.

    The model is measured ≈ scale · (sum + amounts · corrections). It is fitted by least squares of relative errors with
    a Gaussian prior on the corrections (ridge regression). The prior standard deviation of a correction's mean
    contribution is 10 % of the mean latency, and the relative error of a measured latency is 1 %.

    Args:
        sums_ms: Plain sum of the operators' latencies of each network, in milliseconds, shape (networks,).
        amounts: Quantities of each network, such as its number of parameters, shape (networks, quantities).
        measured_ms: Measured latencies of the same networks, in milliseconds, shape (networks,).

    Returns:
        Milliseconds per unit of each quantity, possibly negative. All are 0 for fewer than 8 networks, or if the fitted
        scale is not positive.
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
    """Minimise Σ ((columns · w - y) / y)² over w, with the prior on every component of w except the first."""
    typical = np.maximum(columns.mean(axis=0), 1e-12)
    ratios = columns / typical * (y.mean() / y)[:, None]  # all 1 if all networks are identical
    strength = np.diag([0.0] + [(_NOISE / _SIZE) ** 2] * (columns.shape[1] - 1))
    parts = np.linalg.solve(ratios.T @ ratios + strength, ratios.sum(axis=0))
    solution: FloatArray = parts * y.mean() / typical
    return solution


def fit_calibration(sums_ms: Sequence[float], measured_ms: Sequence[float]) -> Calibration:
    """Fit measured ≈ scale · sum + offset by least squares of relative errors.

    The offset is kept only if it reduces the leave-one-out error by more than 10 % against the scale alone. With few
    networks an offset often fits noise, and would then mispredict the fastest networks of the space. An offset also
    requires at least 4 networks, a positive scale and positive predictions for all of them. It also requires that the
    sums rank the networks with a correlation of at least `RANK_DOUBTFUL`. Otherwise the noise of a busy machine would
    make all networks of the space nearly equally fast.

    Args:
        sums_ms: Plain sum of the operators' latencies of each network, in milliseconds, shape (networks,).
        measured_ms: Measured latencies of the same networks, in milliseconds, shape (networks,).

    Returns:
        The calibration, with its mean relative error on the networks to which it was fitted.
    """
    x, y = np.asarray(sums_ms, dtype=np.float64), np.asarray(measured_ms, dtype=np.float64)
    scale, offset = _fit(x, y, with_offset=False)
    if len(x) >= 4 and np.ptp(x) > 0 and spearman(x, y) >= RANK_DOUBTFUL:
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
    """Leave-one-out error: mean relative error of each network predicted by the fit to all others."""
    errors = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        scale, offset = _fit(x[others], y[others], with_offset)
        errors.append(abs(scale * x[i] + offset - y[i]) / y[i])
    return float(np.mean(errors))


def calibrate(table: LatencyTable, spec: SpaceSpec, measured_ms: Mapping[str, float]) -> LatencyTable:
    """Correct the operators of a table for their behaviour inside networks, and fit its calibration to whole networks.

    Args:
        table: Uncalibrated table.
        spec: Search space of the networks.
        measured_ms: Measured latency of each network in milliseconds, by its `Architecture.candidate_names`.

    Returns:
        Corrected and calibrated table.
    """
    labels = [layer.label for layer in spec.layers]
    networks = [spec.operators(dict(zip(labels, names.split(), strict=True))) for names in measured_ms]
    measured = list(measured_ms.values())
    amounts = [np.sum([_amounts(op) for op in operators], axis=0) for operators in networks]
    corrections: tuple[float, ...] = (0.0, 0.0)
    if (table.backend, table.dtype) in _CORRECTED:
        sums = [table.sum(operators) for operators in networks]
        corrections = fit_corrections(sums, np.array(amounts), measured)
    table = replace(
        table,
        operators={
            op: replace(cost, cost=max(cost.cost + float(np.dot(corrections, _amounts(op))), _MIN_SHARE * cost.cost))
            if isinstance(op, Operator)
            else cost
            for op, cost in table.operators.items()
        },
    )
    sums = [table.sum(operators) for operators in networks]
    calibration = fit_calibration(sums, measured)
    predicted = [calibration.scale * total + calibration.offset_ms for total in sums]
    return with_verdict(
        replace(
            table,
            quality=replace(
                table.quality or Quality(),
                rank_correlation=rank_correlation(predicted, measured),
                smallest_ms=min(measured),
            ),
            calibration=replace(
                calibration,
                architectures=tuple(measured_ms),
                ms_per_million_values=corrections[0],
                ms_per_million_parameters=corrections[1],
            ),
        )
    )


def _amounts(operator: Operator) -> tuple[float, float]:
    """Millions of input and output values of an operator for one image, and millions of its parameters."""
    values = math.prod(operator.input_shape) + math.prod(operator.output_shape)
    return values / 1e6, operator.parameters / 1e6
