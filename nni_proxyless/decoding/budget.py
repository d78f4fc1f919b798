"""Latency budgets, as users state them and in milliseconds.

`decoding.knapsack` chooses the architecture within a budget.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, shown
from ..values import budget_text, is_number, plain_number

if TYPE_CHECKING:  # a recipe is checked without torch
    from ..latency.costs import SpaceCosts


def must_keep_budget(recipe: Mapping[str, Any]) -> bool:
    """Whether a search has to keep its latency budget, rather than taking it as the objective's reference.

    Args:
        recipe: Settings of the search.
    """
    return recipe.get("strategy", "proxyless") != "proxyless" or recipe.get("objective") in (None, "budget")


@dataclass(frozen=True)
class Budget:
    """Latency budget in milliseconds.

    Attributes:
        ms: Latency in milliseconds.
        hard: Whether the exported network must be within the budget. If not, the budget is only the reference of the
            objective.
    """

    ms: float
    hard: bool

    @property
    def limit_ms(self) -> float | None:
        """Latency that decoded networks must not exceed, in milliseconds; `None` if the budget is only a reference."""
        return self.ms if self.hard else None


@dataclass(frozen=True)
class BudgetRequest:
    """Budget as a user states it: in milliseconds, or as a fraction of the largest network's latency.

    Attributes:
        ms: Latency in milliseconds, or `None`.
        fraction: Fraction of the largest network's latency, above 0 and at most 1, or `None`.
        hard: Whether the exported network must be within the budget.

    Raises:
        InputError: Both or neither are given, or a value is out of range.
    """

    ms: float | None = None
    fraction: float | None = None
    hard: bool = True

    def __post_init__(self) -> None:
        """Check the values."""
        if self.ms is None and self.fraction is None:
            raise InputError("a budget needs budget_ms= in milliseconds, or budget_fraction=")
        if self.ms is not None and self.fraction is not None:
            raise InputError(
                f"give budget_ms={self.ms} or budget_fraction={self.fraction}, not both; set one of them to null"
            )
        if self.ms is not None and not (is_number(self.ms) and self.ms > 0.0):
            raise InputError(f"budget_ms must be a number greater than 0, in milliseconds, got {shown(self.ms)}")
        if self.fraction is not None and not (is_number(self.fraction, most=1.0) and self.fraction > 0.0):
            raise InputError(f"budget_fraction must be a number above 0 and at most 1, got {shown(self.fraction)}")

    @classmethod
    def of(cls, budget_ms: float | None, budget_fraction: float | None, *, hard: bool) -> BudgetRequest | None:
        """Create a request from two optional arguments; return `None` if neither is given."""
        if budget_ms is None and budget_fraction is None:
            return None
        return cls(plain_number(budget_ms), plain_number(budget_fraction), hard)

    def resolve(self, costs: SpaceCosts) -> Budget:
        """Compute the budget in milliseconds for a space with these costs.

        Args:
            costs: The device's latency table applied to the space.

        Raises:
            InputError: The budget is hard, and no network of the space is within it.
        """
        ms = self.ms if self.ms is not None else (self.fraction or 1.0) * costs.largest
        # The tolerance covers rounding errors: a budget may be the latency of the fastest network as it was printed.
        if self.hard and not ms >= costs.smallest * (1 - 1e-12):
            raise InputError(
                f"no network of this space takes {ms:g} ms or less; the fastest takes {budget_text(costs.smallest)}, "
                f"the slowest {costs.largest:.4g} ms"
            )
        return Budget(ms, self.hard)

    def __str__(self) -> str:
        return f"budget_ms={self.ms}" if self.ms is not None else f"budget_fraction={self.fraction}"
