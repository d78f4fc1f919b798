"""Pure functions that find the latency weight that meets a budget, by bisection on the weight's logarithm.

A larger weight leads to a faster network, so the ratio of expected latency to budget generally falls as the weight
rises. Because searches are noisy, the ratio is not strictly monotone. It may also be flat where the weight is too small
to matter, or so large that only latency matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STEP = 4.0  # factor between two weights until both sides of the budget are known
NARROW = 1.05  # weights on both sides of the budget whose ratio is below this are not bisected further


@dataclass(frozen=True)
class WeightRange:
    """Range in which the weight is searched.

    Attributes:
        start: First weight to try, unless a better guess is known.
        least: Smallest weight.
        most: Largest weight.
    """

    start: float = 0.1
    least: float = 1e-3
    most: float = 100.0


def next_weight(
    tried: Sequence[tuple[float, float]], tolerance: float, within: WeightRange, start: float | None = None
) -> float | None:
    """Choose the weight to try next.

    Args:
        tried: Pairs of a weight and its ratio of expected latency to budget, in any order.
        tolerance: Largest deviation of the ratio from 1 that counts as meeting the budget.
        within: Range of weights to search.
        start: First weight to try, such as the one found for a neighbouring budget; `within.start` by default.

    Returns:
        The weight, or `None` if a weight that was tried meets the budget or if no better one can be expected. The
        latter holds if the end of the range has been tried, if the weights on both sides of the budget differ by less
        than 5 %, or if noise has put every weight with a ratio above 1 above all those with a ratio below 1.
    """
    if any(abs(ratio - 1.0) <= tolerance for _, ratio in tried):
        return None
    slow = [weight for weight, ratio in tried if ratio > 1.0]  # weights that are too small
    fast = [weight for weight, ratio in tried if ratio < 1.0]  # weights that are too large
    if not tried:
        return min(max(start or within.start, within.least), within.most)
    if not fast:
        return None if max(slow) >= within.most else min(max(slow) * STEP, within.most)
    if not slow:
        return None if min(fast) <= within.least else max(min(fast) / STEP, within.least)
    # Because of noise, a weight in `slow` may be larger than one in `fast`. The closest pair in the right order
    # brackets the budget. Without such a pair there is nothing to bisect.
    pairs = [(low, high) for low in slow for high in fast if low < high]
    if not pairs:
        return None
    low, high = min(pairs, key=lambda pair: pair[1] / pair[0])
    return None if high / low < NARROW else math.sqrt(low * high)


def best_ratio(tried: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    """The pair of weight and ratio whose ratio is nearest to 1 on a logarithmic scale; `None` if there are no pairs."""
    return min(tried, key=lambda pair: abs(math.log(max(pair[1], 1e-9))), default=None)
