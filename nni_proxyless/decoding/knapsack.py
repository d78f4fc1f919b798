"""From a distribution over architectures to one architecture. Pure; deterministic; no side effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError
from ..latency.costs import SpaceCosts

_MAX_STATES = 200_000


@dataclass(frozen=True)
class FrontPoint:
    """An architecture that no other one beats in both latency and likelihood.

    Attributes:
        choices: Label to candidate name.
        latency_ms: By the table, in milliseconds.
        log_likelihood: log Π_layers p of its candidates.
    """

    choices: dict[str, Any]
    latency_ms: float
    log_likelihood: float


def most_likely_within(probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float) -> dict[str, Any]:
    """The most likely architecture whose latency by the table is at most the budget: a multiple-choice knapsack.

    Layer by layer, of all partial architectures only those are kept that no other one beats in both latency and
    likelihood; that is exact. Should more than 200,000 be left, latencies are rounded up to a 200,000th of the
    budget, so that the answer is never over budget.

    Args:
        probs: Label to path probabilities, shape (num_candidates,), for each label of `costs`. What has probability 0
            (a pruned path) is not chosen.
        costs: The table applied to the space.
        budget_ms: The budget in milliseconds.

    Returns:
        Label to candidate name.

    Raises:
        InputError: No architecture is that fast; the message names the smallest feasible budget.
    """
    pass_ = _Pass(probs, costs, budget_ms)
    return pass_.choices(int(pass_.score.argmax()))


def likeliest_within(
    probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float, count: int
) -> list[dict[str, Any]]:
    """The `count` most likely architectures within the budget, the likeliest first; exact as `most_likely_within`.

    Of the partial architectures those are kept that fewer than `count` others beat in both latency and likelihood, and
    some more: whatever a dropped one could become, `count` others become better with the same layers ahead.

    Args:
        probs: As for `most_likely_within`.
        costs: The table applied to the space.
        budget_ms: The budget in milliseconds.
        count: How many.

    Returns:
        Different architectures, label to candidate name; fewer where not so many are within the budget.

    Raises:
        InputError: No architecture is that fast.
    """
    pass_ = _Pass(probs, costs, budget_ms, count)
    best = np.argsort(-pass_.score, kind="stable")[:count]
    return [pass_.choices(int(state)) for state in best]


def front(probs: Mapping[str, Tensor], costs: SpaceCosts, *, budget_ms: float | None = None) -> list[FrontPoint]:
    """The whole trade-off: for every latency the most likely architecture within it, from one pass.

    Args:
        probs: As for `most_likely_within`.
        costs: The table applied to the space.
        budget_ms: Leave out what is slower; without it the front ends at the most likely architecture of all.

    Returns:
        By rising latency and rising likelihood, from the fastest architecture on.

    Raises:
        InputError: No architecture is within the budget.
    """
    pass_ = _Pass(probs, costs, costs.largest if budget_ms is None else budget_ms)
    points = []
    for state in range(len(pass_.latency)):
        choices = pass_.choices(state)
        points.append(FrontPoint(choices, costs.of(choices), float(pass_.score[state])))
    return points


class _Pass:
    """The dynamic programme: states of the last layer, and how each was reached.

    Args:
        probs: Label to path probabilities.
        costs: The table applied to the space.
        budget_ms: The budget in milliseconds.
        fronts: 1 keeps the states that no other beats; more keep the front, the front of the rest, and so on.

    Attributes:
        latency: Latency of each kept architecture in milliseconds, rising; rounded up where they are too many.
        score: Its log likelihood; rising, if there is but one front.
    """

    def __init__(self, probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float, fronts: int = 1) -> None:
        self._costs = costs
        labels = list(costs.layers)
        layers_ms = [np.asarray(costs.layers[label], dtype=np.float64) for label in labels]
        logs = [np.log(np.maximum(probs[label].detach().to(torch.float64).cpu().numpy(), 1e-300)) for label in labels]
        # What has no probability at all was pruned.
        self._open = [np.flatnonzero(probs[label].detach().cpu().numpy() > 0) for label in labels]
        layers_ms = [layer[kept] for layer, kept in zip(layers_ms, self._open, strict=True)]
        logs = [log_p[kept] for log_p, kept in zip(logs, self._open, strict=True)]
        smallest = costs.fixed + sum(float(layer.min()) for layer in layers_ms)
        if not budget_ms >= smallest * (1 - 1e-12):
            raise InputError(
                f"no network of this space takes {budget_ms:g} ms or less; the fastest takes {smallest:.4g} ms"
            )
        # What the layers not yet chosen will take at least.
        ahead = np.append(np.cumsum([layer.min() for layer in layers_ms][::-1])[::-1][1:], 0.0)
        # The comparison has to agree with the sum that predicts, whose order of additions may differ.
        room = budget_ms * (1 + 1e-12)
        latency, score = np.array([costs.fixed]), np.array([0.0])
        self._steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
        for layer_ms, log_p, least in zip(layers_ms, logs, ahead, strict=True):
            latency = (latency[:, None] + layer_ms).ravel()  # (states * num_candidates,)
            score = (score[:, None] + log_p).ravel()
            if np.count_nonzero(latency <= room - least) > _MAX_STATES:
                latency = _rounded_up(latency, budget_ms / _MAX_STATES)
            kept = _fronts(latency, score, room - least, fronts)
            self._steps.append((kept // len(layer_ms), kept % len(layer_ms)))
            latency, score = latency[kept], score[kept]
        self.latency, self.score = latency, score

    def choices(self, state: int) -> dict[str, Any]:
        """The architecture of one of the last states."""
        picks = []
        for (parents, chosen), kept in zip(reversed(self._steps), reversed(self._open), strict=True):
            picks.append(int(kept[chosen[state]]))
            state = int(parents[state])
        candidates = self._costs.candidates
        return {label: candidates[label][pick] for label, pick in zip(self._costs.layers, reversed(picks), strict=True)}


def _rounded_up(latency: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.float64]:
    """Latencies rounded up to whole steps, so that an answer is never over its budget."""
    return np.asarray(np.ceil(latency / step) * step)


def _fronts(
    latency: npt.NDArray[np.float64], score: npt.NDArray[np.float64], room: float, count: int
) -> npt.NDArray[np.int64]:
    """Indices of the states within `room` that lie on the first `count` fronts, by rising latency.

    A state of the first front is beaten by no other one; a state of the second front only by states of the first.
    """
    order = np.lexsort((-score, latency))
    order = order[latency[order] <= room]
    found = np.zeros(len(order), dtype=bool)
    left = np.arange(len(order))
    for _ in range(count):
        if len(left) == 0:
            break
        values = score[order[left]]
        better = np.append(True, values[1:] > np.maximum.accumulate(values)[:-1])
        found[left[better]] = True
        left = left[~better]
    kept: npt.NDArray[np.int64] = order[found]
    return kept
