"""The most likely architectures that satisfy a condition, by best-first enumeration.

A condition on several layers, such as a largest number of edges, is not a cost that adds up over layers. Architectures
are therefore listed in order of decreasing probability, and those that satisfy the condition are taken. The result is
exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import RunError

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

MOST_ARCHITECTURES = 500_000


def likeliest_first(candidates: Mapping[str, Sequence[Any]], probs: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
    """Yield all architectures of positive probability, the most likely one first.

    Among equally probable candidates, the first one comes first.

    Args:
        candidates: Mapping from labels to candidates.
        probs: Mapping from labels to probabilities, shape (num_candidates,).
    """
    labels = list(candidates)
    order: list[list[int]] = []
    losses: list[list[float]] = []
    for label in labels:
        values = probs[label].detach().double().tolist()
        ranked = sorted((i for i, p in enumerate(values) if p > 0), key=lambda i: (-values[i], i))
        order.append(ranked)
        losses.append([math.log(values[ranked[0]]) - math.log(values[i]) for i in ranked])
    # An entry: total loss, ranks of the candidates, and the first layer that may still get a later candidate. So each
    # combination of ranks is reached in one way only.
    heap: list[tuple[float, tuple[int, ...], int]] = [(0.0, (0,) * len(labels), 0)]
    while heap:
        loss, ranks, first = heapq.heappop(heap)
        yield {label: candidates[label][order[n][ranks[n]]] for n, label in enumerate(labels)}
        for n in range(first, len(labels)):
            rank = ranks[n] + 1
            if rank < len(order[n]):
                more = loss + losses[n][rank] - losses[n][rank - 1]
                heapq.heappush(heap, (more, (*ranks[:n], rank, *ranks[n + 1 :]), n))


def likeliest_allowed(
    candidates: Mapping[str, Sequence[Any]],
    probs: Mapping[str, Tensor],
    allowed: Callable[[Mapping[str, Any]], bool],
    count: int,
) -> list[dict[str, Any]]:
    """Return the `count` most likely architectures that satisfy a condition, the most likely one first.

    Args:
        candidates: Mapping from labels to candidates.
        probs: Mapping from labels to probabilities, shape (num_candidates,).
        allowed: Function that tells whether an architecture satisfies the condition.
        count: Number of architectures. There are fewer if the search ends before that many are found.

    Raises:
        RunError: None of the first `MOST_ARCHITECTURES` architectures satisfies the condition.
    """
    listed = islice(likeliest_first(candidates, probs), MOST_ARCHITECTURES)
    found = list(islice((choices for choices in listed if allowed(choices)), count))
    if not found:
        raise RunError(
            f"none of the {MOST_ARCHITECTURES} likeliest networks satisfies the constraints of the space and the budget"
        )
    return found
