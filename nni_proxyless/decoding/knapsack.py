"""Decoding of a distribution over architectures within a latency budget, by dynamic programming.

The results are deterministic, and no function has side effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from ..latency.costs import SpaceCosts
from ..values import budget_text

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor

_MAX_STATES = 200_000


@dataclass(frozen=True)
class FrontPoint:
    """Architecture that no other architecture beats in both latency and likelihood.

    Attributes:
        choices: Mapping from labels to names of candidates.
        latency_ms: Latency predicted by the table, in milliseconds.
        log_likelihood: Logarithm of the product of the candidates' probabilities, in nats.
    """

    choices: dict[str, Any]
    latency_ms: float
    log_likelihood: float


def most_likely_within(probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float) -> dict[str, Any]:
    """Find the most likely architecture whose predicted latency is within a budget (a multiple-choice knapsack).

    The layers are added one after the other. After each layer, only those partial architectures are kept that no other
    one beats in both latency and likelihood. This is exact. If there are more than 200,000 partial architectures within
    the budget, latencies are rounded up to multiples of budget / 200,000, so the result still never exceeds the budget.

    Args:
        probs: Path probabilities of each label of `costs`, shape (num_candidates,). Paths with probability 0 (pruned
            paths) are not chosen.
        costs: Latencies of all candidates.
        budget_ms: Latency budget in milliseconds.

    Returns:
        Mapping from labels to names of candidates.

    Examples:
        >>> names = ("small", "large")
        >>> costs = SpaceCosts(1.0, {"a": names, "b": names}, {"a": (1.0, 3.0), "b": (1.0, 2.0)})
        >>> probs = {"a": torch.tensor([0.4, 0.6]), "b": torch.tensor([0.1, 0.9])}
        >>> most_likely_within(probs, costs, budget_ms=6.0)
        {'a': 'large', 'b': 'large'}
        >>> most_likely_within(probs, costs, budget_ms=5.0)
        {'a': 'small', 'b': 'large'}

    Raises:
        InputError: No architecture is within the budget. The message contains the smallest feasible budget.
    """
    pass_ = _Pass(probs, costs, budget_ms)
    return pass_.choices(int(pass_.score.argmax()))


def likeliest_within(
    probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float, count: int
) -> list[dict[str, Any]]:
    """Find the `count` most likely architectures within a budget, the most likely one first.

    The result is as exact as that of `most_likely_within`. Every partial architecture is kept that fewer than `count`
    others beat in both latency and likelihood. A dropped one cannot be part of the result: however its remaining layers
    are chosen, the same choices yield `count` other architectures that beat it.

    Args:
        probs: Path probabilities of each label of `costs`, as for `most_likely_within`.
        costs: Latencies of all candidates.
        budget_ms: Latency budget in milliseconds.
        count: Number of architectures.

    Returns:
        Different architectures as mappings from labels to names of candidates. There are fewer than `count` if not
        enough architectures are within the budget.

    Examples:
        >>> names = ("small", "large")
        >>> costs = SpaceCosts(1.0, {"a": names, "b": names}, {"a": (1.0, 3.0), "b": (1.0, 2.0)})
        >>> probs = {"a": torch.tensor([0.4, 0.6]), "b": torch.tensor([0.1, 0.9])}
        >>> likeliest_within(probs, costs, budget_ms=5.0, count=2)
        [{'a': 'small', 'b': 'large'}, {'a': 'large', 'b': 'small'}]

    Raises:
        InputError: No architecture is within the budget.
    """
    pass_ = _Pass(probs, costs, budget_ms, count)
    best = np.argsort(-pass_.score, kind="stable")[:count]
    return [pass_.choices(int(state)) for state in best]


def front(probs: Mapping[str, Tensor], costs: SpaceCosts, *, budget_ms: float | None = None) -> list[FrontPoint]:
    """Find the most likely architecture within every latency, in a single pass (the Pareto front).

    Args:
        probs: Path probabilities of each label of `costs`, as for `most_likely_within`.
        costs: Latencies of all candidates.
        budget_ms: Largest latency of the front, in milliseconds. Without it, the front ends at the most likely
            architecture of all.

    Returns:
        Points of the front in order of rising latency and likelihood, starting at the fastest architecture.

    Examples:
        >>> names = ("small", "large")
        >>> costs = SpaceCosts(1.0, {"a": names, "b": names}, {"a": (1.0, 3.0), "b": (1.0, 2.0)})
        >>> probs = {"a": torch.tensor([0.4, 0.6]), "b": torch.tensor([0.1, 0.9])}
        >>> [(point.latency_ms, *point.choices.values()) for point in front(probs, costs)]
        [(3.0, 'small', 'small'), (4.0, 'small', 'large'), (6.0, 'large', 'large')]

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
    """One run of the dynamic programme. A state is a partial architecture, from the first layer to the current one.

    Args:
        probs: Path probabilities of each label of `costs`, shape (num_candidates,).
        costs: Latencies of all candidates.
        budget_ms: Latency budget in milliseconds.
        fronts: Number of Pareto fronts that are kept after each layer: the first front, then the front of the remaining
            states, and so on.

    Attributes:
        latency: Latency of each kept architecture in milliseconds, in rising order, shape (states,). It is rounded up
            if there were too many states.
        score: Log-likelihood of each kept architecture, shape (states,). It is rising if there is only one front.
    """

    def __init__(self, probs: Mapping[str, Tensor], costs: SpaceCosts, budget_ms: float, fronts: int = 1) -> None:
        self._costs = costs
        labels = list(costs.layers)
        layers_ms = [np.asarray(costs.layers[label], dtype=np.float64) for label in labels]
        logs = [np.log(np.maximum(probs[label].detach().double().cpu().numpy(), 1e-300)) for label in labels]
        # Paths with probability 0 were pruned.
        self._open = [np.flatnonzero(probs[label].detach().cpu().numpy() > 0) for label in labels]
        layers_ms = [layer[kept] for layer, kept in zip(layers_ms, self._open, strict=True)]
        logs = [log_p[kept] for log_p, kept in zip(logs, self._open, strict=True)]
        smallest = costs.fixed + sum(float(layer.min()) for layer in layers_ms)
        if not budget_ms >= smallest * (1 - 1e-12):
            raise InputError(
                f"no network of this space takes {budget_ms:g} ms or less; the fastest takes {budget_text(smallest)}"
            )
        # For each layer, the smallest possible latency of all later layers.
        ahead = np.append(np.cumsum([layer.min() for layer in layers_ms][::-1])[::-1][1:], 0.0)
        # The tolerance covers rounding errors, because the predicted latency may add the layers in another order.
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
        """Return the architecture of a state of the last layer, as a mapping from labels to names of candidates."""
        picks = []
        for (parents, chosen), kept in zip(reversed(self._steps), reversed(self._open), strict=True):
            picks.append(int(kept[chosen[state]]))
            state = int(parents[state])
        candidates = self._costs.candidates
        return {label: candidates[label][pick] for label, pick in zip(self._costs.layers, reversed(picks), strict=True)}


def _rounded_up(latency: npt.NDArray[np.float64], step: float) -> npt.NDArray[np.float64]:
    """Round latencies up to multiples of a step. Rounding up ensures that no result exceeds the budget."""
    return np.asarray(np.ceil(latency / step) * step)


def _fronts(
    latency: npt.NDArray[np.float64], score: npt.NDArray[np.float64], room: float, count: int
) -> npt.NDArray[np.int64]:
    """Find the states that lie on the first `count` Pareto fronts of latency and log-likelihood.

    No other state beats a state of the first front. Only states of the first front beat a state of the second front.

    Args:
        latency: Latency of each state in milliseconds, shape (states,).
        score: Log-likelihood of each state, shape (states,).
        room: Largest allowed latency of a state, in milliseconds.
        count: Number of fronts.

    Returns:
        Indices of the states, in order of rising latency.
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
