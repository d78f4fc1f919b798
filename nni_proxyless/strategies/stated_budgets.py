"""Latency tables and budgets that a user gives to a strategy, converted to one form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..decoding.budget import BudgetRequest
from ..decoding.budgets import LATENCY, Limit, check_names, parse_budgets
from ..errors import InputError, shown, unknown_name
from ..latency.table import LatencyTable


@dataclass(frozen=True)
class StatedBudgets:
    """Tables and budgets of a search.

    Attributes:
        target: Name of the search's own target, whose latency is in the objective; `None` without a table.
        tables: Latency table of each target, by name.
        request: Latency budget of the search's own target; `None` for no such budget.
        limits: All other budgets.
        counts: Table with the parameters, multiply-adds and peak memory of a space that does not describe its
            operators.
    """

    target: str | None
    tables: Mapping[str, LatencyTable]
    request: BudgetRequest | None
    limits: tuple[Limit, ...]
    counts: LatencyTable | None = None

    @classmethod
    def of(
        cls,
        latency: LatencyTable | Mapping[str, LatencyTable] | None,
        budget_ms: float | None,
        budget_fraction: float | None,
        budgets: Mapping[str, Any] | None,
        *,
        target: str | None = None,
        counts: LatencyTable | None = None,
        hard: bool = True,
    ) -> StatedBudgets:
        """Check the arguments of a strategy, and convert them to one form.

        The search's own target is the first target with a budget, or else the first target.

        Args:
            latency: Latency table, or several by the name of the target. A single one is named `latency`.
            budget_ms: Latency budget of the own target in milliseconds.
            budget_fraction: Latency budget of the own target as a fraction of the largest network's latency.
            budgets: Limits by target or quantity; see `decoding.budgets`.
            target: Name of the search's own target, if it is another one.
            counts: Table of `measure_model_space`; `None` for the first one of `latency`.
            hard: Whether the exported network must be within the budget of the own target.

        Raises:
            InputError: A table is of the wrong type, a name is unknown, or a budget is given twice.
        """
        tables = dict(latency) if isinstance(latency, Mapping) else {} if latency is None else {LATENCY: latency}
        for name, table in tables.items():
            if not isinstance(table, LatencyTable):
                raise InputError(f"latency= must have a LatencyTable for each target, got {shown(table)} for '{name}'")
        if counts is not None and not (isinstance(counts, LatencyTable) and counts.composition is not None):
            raise InputError(f"counts= must be a table of measure_model_space, got {shown(counts)}")
        if counts is None:
            counts = next((table for table in tables.values() if table.composition is not None), None)
        limits = () if budgets is None else parse_budgets(budgets)
        check_names(limits, tables)
        if target is not None and target not in tables:
            raise InputError(unknown_name("target", target, tables))
        if target is None:
            target = next((limit.name for limit in limits if limit.name in tables), next(iter(tables), None))
        request = BudgetRequest.of(budget_ms, budget_fraction, hard=hard)
        own = next((limit for limit in limits if limit.name == target), None)
        if own is not None:
            if request is not None:
                others = f"; if {request} is meant for another target, name that with target="
                raise InputError(
                    f"the budget of '{target}' is given twice, as {request} and in budgets={{'{own}'}}"
                    f"{others if len(tables) > 1 else ''}"
                )
            request = BudgetRequest.of(own.value, own.fraction, hard=hard)
        if request is not None and target is None:
            raise InputError(f"{request} needs latency=, the table of the device it is meant for")
        return cls(target, tables, request, tuple(limit for limit in limits if limit is not own), counts)

    @property
    def any(self) -> bool:
        """Whether there is any budget."""
        return self.request is not None or bool(self.limits)
