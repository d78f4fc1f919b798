"""Pareto filtering: the points that no other point beats. All coordinates are costs, so smaller is better."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .constraint import FloatArray, IntArray

Mask = npt.NDArray[np.bool_]


def non_dominated(points: FloatArray) -> IntArray:
    """Find the points that no other point beats.

    A point beats another one if it is nowhere larger, and somewhere smaller. Of equal points, the first one is kept.
    The filter is exact. It takes O(n log n) time for up to three coordinates, and O(n log² n) for four.

    Args:
        points: Points, shape (n, dims).

    Returns:
        Indices of the points, in the order of the first coordinate, then of the second, and so on.

    Examples:
        >>> non_dominated(np.array([[1.0, 5.0], [2.0, 2.0], [3.0, 3.0], [4.0, 1.0]])).tolist()
        [0, 1, 3]

    Raises:
        ValueError: The points have no coordinates.
    """
    count, dims = points.shape
    if dims == 0:
        raise ValueError("points need at least one coordinate")
    # In this order, only an earlier point can beat a point.
    order: IntArray = np.lexsort(tuple(points[:, dim] for dim in reversed(range(dims))))
    if count == 0 or dims == 1:
        return order[:1]
    ordered = points[order]
    if dims == 2:
        before = np.append(np.inf, np.minimum.accumulate(ordered[:, 1])[:-1])
        return order[ordered[:, 1] < before]
    everywhere = np.ones(count, dtype=bool)
    ranks = [_ranks(ordered[:, dim]) for dim in range(1, dims)]
    return order[~_beaten(ranks, everywhere, everywhere, (count - 1).bit_length())]


def _ranks(values: FloatArray) -> IntArray:
    """Ranks from 0. Equal values have equal ranks."""
    return np.asarray(np.unique(values, return_inverse=True)[1], dtype=np.int64).ravel()


def _beaten(coordinates: Sequence[IntArray], beating: Mask, beatable: Mask, levels: int) -> Mask:
    """Find the points i for which an earlier point j < i of the same block is not larger in any coordinate.

    Divide and conquer over the order of the points (Kung, Luccio and Preparata 1975), for all blocks of one size at
    once. In each block, the points of the second half are compared with those of the first half. With two coordinates,
    the points are put into the order of the first one, and the smallest second coordinate so far decides. With more,
    the points in the order of the first one are compared in the others in the same way.

    Args:
        coordinates: At least two arrays of ranks, shape (n,) each.
        beating: Which points are compared as j, shape (n,).
        beatable: Which points are compared as i, shape (n,).
        levels: A block has 2^levels points.
    """
    count = len(beating)
    found = np.zeros(count, dtype=bool)
    first, *others = coordinates
    places = np.arange(count)
    # By block, and within a block by the first coordinate. Points of equal rank stay in order.
    order = np.argsort(first, kind="stable")
    order = order[np.argsort(order >> levels, kind="stable")]
    for level in range(levels - 1, -1, -1):
        first_half = (places >> level) & 1 == 0
        source, target = (beating & first_half)[order], (beatable & ~first_half)[order]
        if len(others) == 1:
            values = others[0][order]
            # The values of each block are below those of the one before it, so that one accumulation serves all.
            offset = (count + 1) * (order >> (level + 1))
            smallest = np.minimum.accumulate(np.where(source, values, count) - offset) + offset
            found[order[target & (smallest <= values)]] = True
        else:
            found[order[_beaten([ranks[order] for ranks in others], source, target, level + 1)]] = True
        order = order[np.argsort(order >> level, kind="stable")]
    return found
