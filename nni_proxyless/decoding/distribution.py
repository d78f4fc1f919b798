"""Distribution over architectures, and how it is decoded.

A search ends with a probability for each candidate of each layer. Layers are independent, so an architecture's
probability is the product over its layers (paper section 3.2). With a latency table, the distribution can be
decoded within a budget by the dynamic programme of `knapsack.py`, and within several by `constraints.py`, which is also
for tables with costs of several layers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..latency.costs import SpaceCosts
from .budgets import LATENCY
from .constraint import Constraint
from .constraints import likeliest_satisfying
from .enumeration import likeliest_allowed
from .knapsack import FrontPoint, front, likeliest_within, most_likely_within

if TYPE_CHECKING:  # files are checked without torch
    from torch import Tensor


@dataclass(frozen=True)
class ArchitectureDistribution:
    """Independent categorical distributions, one for each searched layer.

    Attributes:
        candidates: Mapping from labels to candidates, as in an NNI sample.
        probs: Mapping from labels to path probabilities, shape (num_candidates,), in the order of `candidates`. The
            probability of a pruned path is 0.
        costs: Latency table applied to the space, or `None`.
        constraints: Budgets that every decoded architecture is within.
        target: Name of the device of `costs`, for messages.
        allowed: Function that tells whether an architecture satisfies the constraints of the space; `None` if there are
            none.

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
    allowed: Callable[[Mapping[str, Any]], bool] | None = None
    constraints: tuple[Constraint, ...] = ()
    target: str = LATENCY

    def with_costs(self, costs: SpaceCosts | None) -> ArchitectureDistribution:
        """Return the same distribution with the costs of another device."""
        return replace(self, costs=costs)

    def most_likely(self, budget_ms: float | None = None) -> dict[str, Any]:
        """Return the most likely architecture, within a budget if one is given.

        Among equally probable candidates, the first one is chosen.

        Args:
            budget_ms: Largest allowed latency by `costs`, in milliseconds.

        Returns:
            Mapping from labels to candidates.

        Raises:
            InputError: No architecture is within the budget, or there is a budget without `costs`.
        """
        if self.allowed is not None:
            return self._allowed(1, budget_ms)[0]
        if self._needs_programme(budget_ms):
            return likeliest_satisfying(self.probs, self._with_budget(budget_ms))[0]
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
        if self.allowed is not None:
            return self._allowed(count, budget_ms)
        if self._needs_programme(budget_ms):
            return likeliest_satisfying(self.probs, self._with_budget(budget_ms), count)
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
        if self.allowed is not None:
            raise InputError("a front needs a space without constraints; decode within single budgets instead")
        if self.constraints or self.costs.joint:
            return self._front_within(budget_ms)
        return front(self.probs, self.costs, budget_ms=budget_ms)

    def expected_ms(self) -> float | None:
        """Compute E[latency] in milliseconds (paper eq. 5 and 6); `None` without `costs`."""
        return None if self.costs is None else float(self.costs.expected(self.probs))

    def progress(self, choices: Mapping[str, Any]) -> dict[str, float]:
        """Return the columns of a search's history for its constraints.

        Args:
            choices: The decoded architecture, as a mapping from labels to candidates.

        Returns:
            `expected_<name>` for each constraint on a sum, and `decoded_<name>` for each constraint.
        """
        columns = {}
        for constraint in self.constraints:
            if constraint.combine == "sum":
                columns[f"expected_{constraint.name}"] = float(constraint.costs.expected(self.probs))
            columns[f"decoded_{constraint.name}"] = constraint.of(choices)
        return columns

    def at_temperature(self, temperature: float) -> ArchitectureDistribution:
        """Return the distribution whose probabilities are proportional to p^(1/τ), as softmax(α / τ) is.

        Args:
            temperature: Softmax temperature τ, above 0, relative to that of `probs`. Decoding does not depend on it.
        """
        if temperature == 1.0:
            return self
        powers = {label: probs.double() ** (1 / temperature) for label, probs in self.probs.items()}
        return replace(self, probs={label: power / power.sum() for label, power in powers.items()})

    def mean_entropy(self) -> float:
        """Compute the mean entropy of the layers in nats, which shows how undecided the search still is."""
        import torch

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

    def _needs_programme(self, budget_ms: float | None) -> bool:
        """Whether decoding needs more than the dynamic programme of one additive budget."""
        joint = budget_ms is not None and self.costs is not None and bool(self.costs.joint)
        return bool(self.constraints) or joint

    def _with_budget(self, budget_ms: float | None) -> tuple[Constraint, ...]:
        if budget_ms is None:
            return self.constraints
        return (Constraint(self.target, budget_ms, self._known_costs(budget_ms)), *self.constraints)

    def _front_within(self, budget_ms: float | None) -> list[FrontPoint]:
        """Find the front within the constraints, from the most likely architecture to ever faster ones."""
        assert self.costs is not None
        points: list[FrontPoint] = []
        limit = budget_ms
        while True:
            try:
                choices = self.most_likely(limit)
            except InputError:
                if not points:
                    raise
                return points[::-1]
            latency = self.costs.of(choices)
            points.append(FrontPoint(choices, latency, self.log_likelihoods([choices])[0]))
            limit = latency * (1 - 1e-9)

    def _allowed(self, count: int, budget_ms: float | None) -> list[dict[str, Any]]:
        assert self.allowed is not None
        keeps, limits = self.allowed, self._with_budget(budget_ms)
        if any(quantity.allowed < len(quantity.values) for limit in limits for quantity in limit.costs.derived):
            # The tables know the constraints of the space. A table of another version might not know all of them.
            likeliest = likeliest_satisfying(self.probs, limits, count)
            if all(keeps(choices) for choices in likeliest):
                return likeliest

        def allowed(choices: Mapping[str, Any]) -> bool:
            return all(limit.holds(limit.of(choices)) for limit in limits) and keeps(choices)

        return likeliest_allowed(self.candidates, self.probs, allowed, count)

    def _known_costs(self, budget_ms: float) -> SpaceCosts:
        if self.costs is None:
            raise InputError(f"a budget of {budget_ms:g} ms needs a latency table")
        return self.costs


def _arg_max(probs: Tensor) -> int:
    values: list[float] = probs.detach().tolist()
    return values.index(max(values))
