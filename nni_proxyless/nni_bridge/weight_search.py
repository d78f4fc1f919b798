"""Finding the latency weight that meets a budget: bisection on its logarithm. Pure.

The more latency counts, the faster the network: the ratio of expected latency to budget falls, by and large, as the
weight rises. A search is noisy, so the ratio is not quite monotone, and may be flat where the weight is too small to
matter or so large that nothing else does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEP = 4.0
NARROW = 1.05


@dataclass(frozen=True)
class WeightRange:
    """Where weights are looked for.

    Attributes:
        start: The first one, where nothing better is known.
        least: The smallest.
        most: The largest.
    """

    start: float = 0.1
    least: float = 1e-3
    most: float = 100.0


def next_weight(
    tried: Sequence[tuple[float, float]], tolerance: float, within: WeightRange, start: float | None = None
) -> float | None:
    """The weight to try next.

    Args:
        tried: Weight, and expected latency over budget with it, in any order.
        tolerance: It is good enough when the ratio is within this of 1.
        within: Where to look.
        start: Where to begin, as a neighbouring budget suggests.

    Returns:
        The weight, or none when one of those tried is good enough, or no better one can be expected: the ends of the
        range have been tried, or the weights on both sides of the budget differ by less than 5 %.
    """
    if any(abs(ratio - 1.0) <= tolerance for _, ratio in tried):
        return None
    slow = [weight for weight, ratio in tried if ratio > 1.0]  # their weights are too small
    fast = [weight for weight, ratio in tried if ratio < 1.0]
    if not tried:
        return min(max(start or within.start, within.least), within.most)
    if not fast:
        return None if max(slow) >= within.most else min(max(slow) * STEP, within.most)
    if not slow:
        return None if min(fast) <= within.least else max(min(fast) / STEP, within.least)
    # Noise can put a weight that is too small above one that is too large. The innermost pair that is in order brackets
    # the budget; if there is none, there is nothing left to bisect.
    pairs = [(low, high) for low in slow for high in fast if low < high]
    if not pairs:
        return None
    low, high = min(pairs, key=lambda pair: pair[1] / pair[0])
    return None if high / low < NARROW else math.sqrt(low * high)


def best_ratio(tried: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The weight whose ratio is nearest to 1, and that ratio."""
    return min(tried, key=lambda pair: abs(math.log(max(pair[1], 1e-9))), default=None)
