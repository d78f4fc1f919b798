"""Whether networks meet budgets: each network its own budgets, and every network those of all searches of a report."""

from __future__ import annotations

from dataclasses import dataclass

from ..decoding.budgets import QUANTITIES, amount, quantity_of_network
from ..errors import ProxylessError
from ..network.architecture import Architecture
from .checks import latency_of
from .results import Results

KEPT, NOT_KEPT = "kept", "NOT kept"
BY_TABLE, WHEN_MEASURED = "according to the table", "when measured"
REFERENCE = "reference of the objective"
_TOLERANCE = 1e-9  # relative; limits and values are rounded when they are written
_BINARY = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


@dataclass(frozen=True)
class Constraint:
    """Limit on a quantity: the latency of a target in ms, or one of `decoding.budgets.QUANTITIES`.

    Attributes:
        name: Name of the target or quantity.
        limit: Largest allowed value, in ms, bytes or counts.
    """

    name: str
    limit: float

    @property
    def label(self) -> str:
        """Heading of the constraint's column, such as `phone <= 40`."""
        return f"{self.name} <= {amount(self.name, self.limit)}"

    def keeps(self, value: float) -> bool:
        return value <= self.limit * (1 + _TOLERANCE)


@dataclass(frozen=True)
class Kept:
    """A budget of a network, and the network's value of the budgeted quantity.

    Attributes:
        constraint: Budget.
        value: Value of the network, predicted by the latency table or computed; `None` if it is not known.
        measured: Measured value; `None` if it was not measured.
        hard: Whether the search had to keep the budget. If not, the budget was only the reference of its objective.
    """

    constraint: Constraint
    value: float | None
    measured: float | None = None
    hard: bool = True

    @property
    def holds(self) -> bool | None:
        """Whether the budget is met, also when measured; `None` if no value is known, or the budget need not be met."""
        known = [value for value in (self.value, self.measured) if value is not None]
        return all(map(self.constraint.keeps, known)) if known and self.hard else None

    @property
    def advice(self) -> str:
        """Say which budget leaves room for the table's error, if the network exceeds its own only when measured."""
        limit, value, measured = self.constraint.limit, self.value, self.measured
        if not self.hard or not value or not measured:
            return ""
        if not self.constraint.keeps(value) or self.constraint.keeps(measured):
            return ""
        return f"a search with a budget of {limit * value / measured:.4g} ms leaves room"

    @property
    def word(self) -> str:
        """Whether the budget is met, in words."""
        if not self.hard:
            return REFERENCE
        if self.value is None and self.measured is None:
            return "not known"
        held = {
            how: KEPT if self.constraint.keeps(value) else NOT_KEPT
            for how, value in ((BY_TABLE, self.value), (WHEN_MEASURED, self.measured))
            if value is not None
        }
        words = list(held.values())
        if self.constraint.name in QUANTITIES or words in ([KEPT] * 2, [NOT_KEPT] * 2):
            return words[0]
        return ", ".join(f"{word} {how}" for how, word in held.items())

    def __str__(self) -> str:
        limit, value = self.constraint.limit, self.measured if self.value is None else self.value
        if value is None:
            return f"{self.word}: {self.constraint.name}"
        text = f"{self.word}: {self.constraint.name} {quantity_text(self.constraint.name, value, limit)}"
        both = self.value is not None and self.measured is not None
        if both and self.constraint.keeps(self.value or 0.0) != self.constraint.keeps(self.measured or 0.0):
            text += f", measured {quantity_text(self.constraint.name, self.measured or 0.0)}"
        return text


def quantity_text(name: str, value: float, limit: float | None = None) -> str:
    """Return a quantity with its unit if it has one, and with its limit if one is given: `0.49 of 0.65 ms`.

    Args:
        name: Name of the quantity, one of `QUANTITIES`, or of a target, whose unit is ms.
        value: Value in ms, bytes or counts.
        limit: Limit in the same unit.
    """
    unit = QUANTITIES.get(name, "ms")
    values = [value] if limit is None else [value, limit]
    if unit == "ms":
        return f"{' of '.join(f'{v:.4g}' for v in values)} ms"
    if unit == "bytes":
        factor, word = next(((f, w) for f, w in _BINARY if max(values) >= f), (1, "bytes"))
        return f"{' of '.join(f'{v / factor:.4g}' for v in values)} {word}"
    return " of ".join(f"{v:,.0f}" for v in values)


def own_budgets(target: str, architecture: Architecture, *, hard: bool = True) -> list[Kept]:
    """Return the budgets that a network was searched for.

    Args:
        target: Target of the search.
        architecture: Network that the search found.
        hard: Whether the search had to keep its latency budget; see `Search.keeps_budget`.
    """
    found = []
    if architecture.budget_ms is not None:
        predicted, measured = map(latency_of, (architecture.predicted_latency_ms, architecture.measured_latency_ms))
        found.append(Kept(Constraint(target, architecture.budget_ms), predicted, measured, hard))
    for name, numbers in architecture.budgets.items():
        one = Kept(Constraint(name, numbers["limit"]), numbers["value"])
        if (name, numbers["limit"]) not in {(known.constraint.name, known.constraint.limit) for known in found}:
            found.append(one)
    return found


def all_constraints(results: Results) -> list[Constraint]:
    """Return the budgets of all finished searches, those of latencies first, by name and limit."""
    found = {
        kept.constraint
        for search in results.searches
        if search.architecture is not None
        for kept in own_budgets(search.target, search.architecture, hard=search.keeps_budget)
        if kept.hard
    }
    return sorted(found, key=lambda c: (c.name in QUANTITIES, c.name, c.limit))


def value_of(results: Results, architecture: Architecture, name: str) -> float | None:
    """Compute a quantity of a network: its latency by a target's table, or one of `QUANTITIES`.

    Returns:
        Value in ms, bytes or counts; `None` if the network has no description, or the table lacks its operators.
    """
    if architecture.spec is None:
        return None
    if name in QUANTITIES:
        return float(quantity_of_network(name, architecture.operators()))
    table = results.table(name)
    try:
        return None if table is None else latency_of(table.costs(architecture.spec).of(architecture.choices))
    except ProxylessError:  # the table is of another space and lacks operators of this network
        return None
