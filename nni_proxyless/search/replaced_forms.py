"""Settings of a recipe that are two forms of one value. A later source replaces both forms by the one that it gives.

So `budget_ms=5` on the command line replaces a recipe's `budget_fraction`, instead of being refused as a second budget.
Within one source, two forms of a value are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OWN_BUDGET = ("budget_ms", "budget_fraction")


def replaced_forms(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return the keys of earlier sources that a later source replaces by another form of their value.

    Args:
        before: Values of the earlier sources by key.
        given: Values of the later source by key.

    Returns:
        For each such key, its new value, and the key of `given` that replaces it.
    """
    if all(before.get(key) is not None for key in _OWN_BUDGET):
        return {}  # refused, whatever is given
    replaced: dict[str, tuple[Any, str]] = {}
    target = given.get("target", before.get("target"))
    own = next((key for key in _OWN_BUDGET if given.get(key) is not None), None)
    listed = given.get("budgets")
    by = own or ("budgets" if _has(listed, target) else None)
    if by is not None:
        replaced = {key: (None, by) for key in _OWN_BUDGET if before.get(key) is not None and key not in given}
    listed = before.get("budgets")
    if own is not None and "budgets" not in given and _has(listed, target):
        left = {name: value for name, value in before["budgets"].items() if name != target}
        replaced["budgets"] = (left, own)
    if given.get("strategy") == "proxyless" and before.get("strategy_args") and "strategy_args" not in given:
        replaced["strategy_args"] = ({}, "strategy")  # arguments of another strategy
    return replaced


def _has(budgets: object, target: object) -> bool:
    """Whether budgets, which need not be valid, have one of a target."""
    return isinstance(budgets, Mapping) and isinstance(target, str) and target in budgets
