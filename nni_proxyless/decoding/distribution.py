"""A distribution over architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from .knapsack import _Candidate


def most_likely(probs: Mapping[str, Tensor], candidates: Mapping[str, Sequence[_Candidate]]) -> dict[str, _Candidate]:
    """The most likely architecture: the arg max of each layer, as layers are independent (paper section 3.2).

    Args:
        probs: Label to path probabilities, shape (num_candidates,).
        candidates: Label to candidates in the same order.

    Returns:
        Label to candidate. Equal probabilities go to the earlier candidate.
    """
    return {label: candidates[label][_argmax(p)] for label, p in probs.items()}


def log_likelihoods(
    probs: Mapping[str, Tensor],
    candidates: Mapping[str, Sequence[_Candidate]],
    architectures: Sequence[Mapping[str, _Candidate]],
) -> list[float]:
    """Log of each architecture's probability, in nats: the sum over layers; -inf where a path is pruned.

    Args:
        probs: Label to path probabilities, shape (num_candidates,).
        candidates: Label to candidates in the same order.
        architectures: Label to candidate, for each.
    """
    logs = {label: p.double().log().tolist() for label, p in probs.items()}
    return [
        sum(logs[label][list(of).index(choices[label])] for label, of in candidates.items())
        for choices in architectures
    ]


def _argmax(probs: Tensor) -> int:
    values: list[float] = probs.detach().tolist()
    return values.index(max(values))
