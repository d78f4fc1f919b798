"""Distribution over architectures, and how it is decoded.

A search ends with a probability for each candidate of each layer. Layers are independent, so an architecture's
probability is the product over its layers (paper section 3.2). With a latency table, the distribution can be
decoded within a budget by the dynamic programme of `knapsack.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..latency.costs import SpaceCosts
from .knapsack import FrontPoint, front, likeliest_within, most_likely_within


@dataclass(frozen=True)
class ArchitectureDistribution:
    """Independent categorical distributions, one for each searched layer.

    Attributes:
        candidates: Mapping from labels to candidates, as in an NNI sample.
        probs: Mapping from labels to path probabilities, shape (num_candidates,), in the order of `candidates`. The
            probability of a pruned path is 0.
        costs: Latency table applied to the space, or `None`.

    Examples:
        >>> candidates = {"a": ("small", "large"), "b": ("small", "large")}
        >>> probs = {"a": torch.tensor([0.4, 0.6]), "b": torch.tensor([0.3, 0.7])}
        >>> found = ArchitectureDistribution(candidates, probs)
        >>> found.most_likely()
        {'a': 'large', 'b': 'large'}
        >>> [list(choices.values()) for choices in found.k_most_likely(3)]
        [['large', 'large'], ['small', 'large'], ['large', 'small']]
    """

    candidates: Mapping[str, Sequence[Any]]
    probs: Mapping[str, Tensor]
    costs: SpaceCosts | None = None

    def with_costs(self, costs: SpaceCosts | None) -> ArchitectureDistribution:
        """Return the same distribution with the costs of another device."""
        return replace(self, costs=costs)

    def most_likely(self, budget_ms: float | None = None) -> dict[str, Any]:
        """Return the most likely architecture, within a budget if one is given.

        Of equally probable candidates, the first one is taken.

        Args:
            budget_ms: Largest allowed latency by `costs`, in milliseconds.

        Returns:
            Mapping from labels to candidates.

        Raises:
            InputError: No architecture is within the budget, or there is a budget without `costs`.
        """
        if budget_ms is None:
            return {label: of[_arg_max(self.probs[label])] for label, of in self.candidates.items()}
        return most_likely_within(self.probs, self._known_costs(budget_ms), budget_ms)

    def k_most_likely(self, count: int, budget_ms: float | None = None) -> list[dict[str, Any]]:
        """Return the `count` most likely architectures, the most likely one first, or all if there are fewer.

        Args:
            count: Number of architectures.
            budget_ms: Largest allowed latency by `costs`, in milliseconds.

        Raises:
            InputError: No architecture is within the budget, or there is a budget without `costs`.
        """
        if budget_ms is None:
            free = SpaceCosts(1.0, self.candidates, {label: (0.0,) * len(of) for label, of in self.candidates.items()})
            return likeliest_within(self.probs, free, 1.0, count)
        return likeliest_within(self.probs, self._known_costs(budget_ms), budget_ms, count)

    def front(self, budget_ms: float | None = None) -> list[FrontPoint]:
        """Return the most likely architecture within every latency; see `knapsack.front`.

        Args:
            budget_ms: Largest latency of the front, in milliseconds.

        Raises:
            InputError: There are no `costs`, or no architecture is within the budget.
        """
        if self.costs is None:
            raise InputError("a front needs a latency table")
        return front(self.probs, self.costs, budget_ms=budget_ms)

    def expected_ms(self) -> float | None:
        """Compute E[latency] in milliseconds (paper eq. 5 and 6); `None` without `costs`."""
        return None if self.costs is None else float(self.costs.expected(self.probs))

    def mean_entropy(self) -> float:
        """Compute the mean entropy of the layers in nats, which shows how undecided the search still is."""
        return float(torch.stack([torch.special.entr(probs).sum() for probs in self.probs.values()]).mean())

    def log_likelihoods(self, architectures: Sequence[Mapping[str, Any]]) -> list[float]:
        """Compute the logarithm of each architecture's probability in nats; -inf for one with a pruned path.

        Args:
            architectures: Architectures as mappings from labels to candidates.
        """
        logs = {label: probs.double().log().tolist() for label, probs in self.probs.items()}
        return [
            sum(logs[label][list(of).index(choices[label])] for label, of in self.candidates.items())
            for choices in architectures
        ]

    def _known_costs(self, budget_ms: float) -> SpaceCosts:
        if self.costs is None:
            raise InputError(f"a budget of {budget_ms:g} ms needs a latency table")
        return self.costs


def _arg_max(probs: Tensor) -> int:
    values: list[float] = probs.detach().tolist()
    return values.index(max(values))
