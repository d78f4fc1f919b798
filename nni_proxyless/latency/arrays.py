"""The array type of the latency package, and the rank correlation of two arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def spearman(predicted: FloatArray, measured: FloatArray) -> float:
    """Spearman rank correlation of two arrays; 0 if either array is constant."""
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return 0.0
    from scipy.stats import spearmanr  # late, because its import would take a second of each measuring process

    return float(spearmanr(predicted, measured)[0])
