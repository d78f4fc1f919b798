"""Random architectures within a budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..latency.costs import SpaceCosts

_MAX_DRAWS = 20_000


def draw_within(
    candidates: Mapping[str, Sequence[Any]],
    costs: SpaceCosts | None,
    budget_ms: float | None,
    count: int,
    generator: random.Random,
    accepts: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> list[dict[str, Any]]:
    """Draw different random architectures within a budget, with equally likely candidates as far as the budget allows.

    An architecture that is too slow is dropped. If hardly any is fast enough, the probability of a candidate falls with
    its cost, and the more draws have failed, the faster it falls.

    Args:
        candidates: Mapping from labels to candidates.
        costs: Latency table applied to the space; `None` without a budget.
        budget_ms: Largest allowed latency in milliseconds.
        count: Number of architectures. Fewer are returned if the space does not have so many.
        generator: Source of the random draws.
        accepts: Function that says whether an architecture may be drawn.

    Returns:
        Architectures as mappings from labels to candidates.
    """
    found: dict[str, dict[str, Any]] = {}
    for draw in range(_MAX_DRAWS):
        tilt = 0.0 if budget_ms is None else max(0, draw - _MAX_DRAWS // 4) / (_MAX_DRAWS / 40)
        choices = {}
        for label, of in candidates.items():
            weights = None
            if tilt and costs is not None and budget_ms is not None:
                least = min(costs.layers[label])
                weights = [
                    2.0 ** (-tilt * len(candidates) * (cost - least) / budget_ms) for cost in costs.layers[label]
                ]
            choices[label] = generator.choices(of, weights)[0]
        if (costs is None or budget_ms is None or costs.of(choices) <= budget_ms) and accepts(choices):
            found.setdefault(str(choices), choices)
        if len(found) == count:
            break
    if not found and costs is not None:  # the budget is the latency of the fastest network
        found[""] = dict(costs.cheapest)
    return list(found.values())
