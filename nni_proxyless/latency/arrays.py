"""The array type of the latency package, and the rank correlation of two arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

if TYPE_CHECKING:
    pass


def spearman(predicted: FloatArray, measured: FloatArray) -> float:
    """Spearman rank correlation of two arrays; 0 if either array is constant."""
    if np.ptp(predicted) == 0 or np.ptp(measured) == 0:
        return 0.0
    return float(spearmanr(predicted, measured)[0])


FloatArray = npt.NDArray[np.float64]
