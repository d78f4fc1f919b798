"""From a distribution over architectures to one architecture. Pure; deterministic; no side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import InputError
from .latency.costs import SpaceCosts

_Candidate = TypeVar("_Candidate")
_MAX_STATES = 200_000


def most_likely(probs: Mapping[str, Tensor], candidates: Mapping[str, Sequence[_Candidate]]) -> dict[str, _Candidate]:
    """The most likely architecture: the arg max of each layer, as layers are independent (paper section 3.2).

    Args:
        probs: Label to path probabilities, shape (num_candidates,).
        candidates: Label to candidates in the same order.

    Returns:
        Label to candidate. Equal probabilities go to the earlier candidate.
    """
    return {label: candidates[label][_argmax(p)] for label, p in probs.items()}


def most_likely_within(probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float) -> dict[str, str]:
    """The most likely architecture whose latency by the table is at most the budget: a multiple-choice knapsack.

    Layer by layer, of all partial architectures only those are kept that no other one beats in both latency and
    likelihood; that is exact. Should more than 200,000 be left, latencies are rounded up to a 200,000th of the
    budget, so that the answer is never over budget.

    Args:
        probs: Label to path probabilities, shape (num_candidates,), for each label of `costs`.
        costs: The table applied to the space.
        budget_ms: The budget in milliseconds.

    Returns:
        Label to candidate name.

    Raises:
        InputError: No architecture is that fast; the message names the smallest feasible budget.
    """
    if not budget_ms >= costs.smallest:
        raise InputError(
            f"no network of this space takes {budget_ms:g} ms or less; the fastest takes {costs.smallest:.4g} ms"
        )
    labels = list(costs.layers)
    layers_ms = [np.asarray(costs.layers[label], dtype=np.float64) for label in labels]
    # What the layers not yet chosen will take at least.
    ahead = np.append(np.cumsum([layer.min() for layer in layers_ms][::-1])[::-1][1:], 0.0)
    # The comparison has to agree with the sum that predicts, whose order of additions may differ.
    room = budget_ms * (1 + 1e-12)
    latency, score = np.array([costs.fixed]), np.array([0.0])
    steps: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] = []
    for label, layer_ms, least in zip(labels, layers_ms, ahead, strict=True):
        log_p = np.log(np.maximum(probs[label].detach().to(torch.float64).cpu().numpy(), 1e-300))
        latency = (latency[:, None] + layer_ms).ravel()  # (states * num_candidates,)
        score = (score[:, None] + log_p).ravel()
        kept = _front(latency, score, room - least, budget_ms / _MAX_STATES)
        steps.append((kept // len(layer_ms), kept % len(layer_ms)))
        latency, score = latency[kept], score[kept]
    state = int(score.argmax())
    picks = []
    for parents, chosen in reversed(steps):
        picks.append(int(chosen[state]))
        state = int(parents[state])
    return {label: costs.candidates[label][pick] for label, pick in zip(labels, reversed(picks), strict=True)}


def _front(
    latency: npt.NDArray[np.float64], score: npt.NDArray[np.float64], room: float, step: float
) -> npt.NDArray[np.int64]:
    """Indices of the states within `room` that no other one beats, by rising latency."""
    kept = np.lexsort((-score, latency))
    kept = kept[latency[kept] <= room]
    if len(kept) > _MAX_STATES:
        latency[kept] = np.ceil(latency[kept] / step) * step
        kept = kept[latency[kept] <= room]
        kept = kept[np.lexsort((-score[kept], latency[kept]))]
    best = np.maximum.accumulate(score[kept])
    better = np.append(True, score[kept][1:] > best[:-1])
    front: npt.NDArray[np.int64] = kept[better[: len(kept)]]
    return front


def _argmax(probs: Tensor) -> int:
    values: list[float] = probs.detach().tolist()
    return values.index(max(values))
