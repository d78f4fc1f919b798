"""A distribution over architectures, and the architectures that it means.

A search ends with a probability for each candidate of each layer. Layers are independent, so an architecture's
probability is the product over its layers (paper section 3.2). With a latency table the distribution also knows which
architectures keep a budget: it is then decoded by the dynamic programme of `knapsack.py`.
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
        candidates: Label to candidates, as an NNI sample names them.
        probs: Label to path probabilities, shape (num_candidates,), in the order of `candidates`; 0 where a path was
            pruned.
        costs: A latency table applied to the space, or `None`.
    """

    candidates: Mapping[str, Sequence[Any]]
    probs: Mapping[str, Tensor]
    costs: SpaceCosts | None = None

    def with_costs(self, costs: SpaceCosts | None) -> ArchitectureDistribution:
        """The same distribution with the costs of another device."""
        return replace(self, costs=costs)

    def most_likely(self, budget_ms: float | None = None) -> dict[str, Any]:
        """The most likely architecture, of those within a budget if one is given.

        Equal probabilities go to the earlier candidate.

        Args:
            budget_ms: Largest allowed latency by `costs`, in milliseconds.

        Returns:
            Label to candidate.

        Raises:
            InputError: No architecture is within the budget, or there is a budget without `costs`.
        """
        if budget_ms is None:
            return {label: of[_arg_max(self.probs[label])] for label, of in self.candidates.items()}
        return most_likely_within(self.probs, self._known_costs(budget_ms), budget_ms)

    def k_most_likely(self, count: int, budget_ms: float | None = None) -> list[dict[str, Any]]:
        """The `count` most likely architectures, the likeliest first; fewer where there are not so many.

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
        """For every latency the most likely architecture within it; see `knapsack.front`.

        Args:
            budget_ms: Largest latency of the front, in milliseconds.

        Raises:
            InputError: There are no `costs`, or no architecture is within the budget.
        """
        if self.costs is None:
            raise InputError("a front needs a latency table")
        return front(self.probs, self.costs, budget_ms=budget_ms)

    def expected_ms(self) -> float | None:
        """E[latency] by `costs` in milliseconds (paper eq. 5 and 6), or `None` without `costs`."""
        return None if self.costs is None else float(self.costs.expected(self.probs))

    def mean_entropy(self) -> float:
        """Mean entropy of the layers in nats: how undecided the search still is."""
        return float(torch.stack([torch.special.entr(probs).sum() for probs in self.probs.values()]).mean())

    def log_likelihoods(self, architectures: Sequence[Mapping[str, Any]]) -> list[float]:
        """Log of each architecture's probability in nats; -inf where it has a pruned path.

        Args:
            architectures: Label to candidate, for each architecture.
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
