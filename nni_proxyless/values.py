"""Checks of numbers that come from users and files, and their largest allowed values.

Larger numbers are typing errors, and could exhaust the machine or overflow.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, TypeGuard

MOST_WHOLE = 2**63 - 1
MOST_LATENCY_MS = 1e9  # eleven days; a larger latency is an error, and sums of many could overflow
LEAST_LATENCY_MS = 1e-9  # a thousandth of a nanosecond, in which nothing runs
MOST_OPERATIONS = 1e18  # FLOPs or parameters of an operator


MOST_SEED = 2**32 - 1  # NumPy's random number generators take no larger one
MOST_THREADS = 1024
MOST_PROCESSES = 1024
MOST_FINALISTS = 10_000
MOST_SUGGESTED = 1_000  # networks at once; time and memory are quadratic in the pool
MOST_SAMPLES = 10_000
MOST_EPOCHS = 1_000_000
MOST_PIXELS = 4096  # height and width of an image
MOST_CHANNELS = 4_096  # of an image
MOST_COUNT = 1_000_000_000  # such as images in a batch
LEAST_WIDTH_MULT = 0.01
MOST_WIDTH_MULT = 100.0
LEAST_NUMBER = 1e-30  # a smaller one is 0 with 32 bits, or becomes it in a product
MOST_NETWORKS = 10_000_000  # measured networks that a table may be fitted to; a file of measurements has fewer
MOST_NUMBER = 1e30  # PyTorch computes with 32 bits, up to 3.4e38
LEAST_TEMPERATURE = 1e-3  # a softmax of this temperature is a decision
MOST_BATCH = 100_000


def is_number(value: object, least: float = -math.inf, most: float = math.inf) -> TypeGuard[int | float]:
    """Whether a value is a finite number within bounds. A truth value is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    small = abs(value) <= MOST_WHOLE if isinstance(value, int) else math.isfinite(value)
    return small and least <= value <= most


def plain_number(value: Any) -> Any:
    """Return a number of another library, such as NumPy's, as Python's own, and anything else unchanged."""
    if type(value) in (int, float, bool) or not isinstance(value, numbers.Real):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def rounded_up(value: float, decimals: int) -> float:
    """Round a number up to decimals, unless it differs from a rounded one by a rounding error only."""
    nearest = round(value, decimals)
    return nearest if nearest * (1 + 1e-12) >= value else round(nearest + 10.0**-decimals, decimals)


def budget_text(ms: float) -> str:
    """Format a latency in milliseconds with 4 digits, rounded up, so that it is a budget that a network is within."""
    digits = 3 - math.floor(math.log10(abs(ms))) if ms else 0
    return f"{rounded_up(ms, digits):.15g} ms"


def finite_only(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return only the finite numbers, since JSON has neither NaN nor Infinity."""
    return {key: value for key, value in numbers.items() if math.isfinite(value)}


def not_finite_warning(numbers: Mapping[str, float]) -> str | None:
    """Return a warning that names the numbers which `finite_only` leaves out; `None` if there are none."""
    left_out = [f"{key} is {value}" for key, value in numbers.items() if not math.isfinite(value)]
    return f"{', '.join(left_out)}, so it is left out of the results" if left_out else None


def is_whole(value: object, least: int = 0, most: int = MOST_WHOLE) -> TypeGuard[int]:
    """Whether a value is an integer within bounds. A truth value is not an integer."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
