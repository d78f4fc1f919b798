"""From a distribution over architectures to one architecture. Pure; deterministic; no side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor

_Candidate = TypeVar("_Candidate")


def most_likely(probs: Mapping[str, Tensor], candidates: Mapping[str, Sequence[_Candidate]]) -> dict[str, _Candidate]:
    """The most likely architecture: the arg max of each layer, as layers are independent (paper section 3.2).

    Args:
        probs: Label to path probabilities, shape (num_candidates,).
        candidates: Label to candidates in the same order.

    Returns:
        Label to candidate. Equal probabilities go to the earlier candidate.
    """
    return {label: candidates[label][_argmax(p)] for label, p in probs.items()}


def _argmax(probs: Tensor) -> int:
    values: list[float] = probs.detach().tolist()
    return values.index(max(values))
