"""Random networks within a budget."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from ..latency.costs import SpaceCosts

_MAX_DRAWS = 20_000


def draw_within(
    candidates: Mapping[str, tuple[Any, ...]],
    costs: SpaceCosts | None,
    budget_ms: float | None,
    count: int,
    generator: random.Random,
) -> list[dict[str, Any]]:
    """Random networks within a budget, all candidates equally likely as far as the budget allows.

    Drawn and dropped when too slow; where hardly any is fast enough, candidates are drawn with probabilities that fall
    with their cost, the more the longer it takes.

    Args:
        candidates: Label to candidates.
        costs: The table applied to the space; none where there is no budget.
        budget_ms: In milliseconds.
        count: How many; fewer where the space has not that many.
        generator: Draws them.
    """
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
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
        if costs is None or budget_ms is None or costs.of(choices) <= budget_ms:
            found.setdefault(tuple(choices.values()), choices)
        if len(found) == count:
            break
    if not found and costs is not None:  # the budget is that of the very fastest
        fastest = {
            label: of[min(range(len(of)), key=costs.layers[label].__getitem__)] for label, of in candidates.items()
        }
        found[tuple(fastest.values())] = fastest
    return list(found.values())
