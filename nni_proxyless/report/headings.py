"""Headings of the tables on the page, with units. The CSV files keep the names of the columns."""

from __future__ import annotations

from collections.abc import Collection

from ..decoding.budgets import QUANTITIES
from .kept_budgets import quantity_text

_SUFFIXES = {"_ms": "ms", "_mib": "MiB", "_s": "s"}
_WHOLE = {"seconds": "time (s)"}


def heading(column: str, targets: Collection[str]) -> str:
    """Return the heading of a column.

    Args:
        column: Name of the column: a quantity, the name of a target, whose latency it has, or a budget such as
            `phone <= 40`.
        targets: Names of the targets.
    """
    name, limit, value = column.partition(" <= ")
    if limit:
        return f"{name if name in targets else _words(name)} ≤ {quantity_text(name, float(value))}"
    if column in targets:
        return f"{column} (ms)"
    if column in _WHOLE:
        return _WHOLE[column]
    if QUANTITIES.get(column) == "bytes":
        return f"{_words(column)} (bytes)"
    for suffix, unit in _SUFFIXES.items():
        if column.endswith(suffix):
            return f"{_words(column.removesuffix(suffix))} ({unit})"
    return _words(column)


def _words(name: str) -> str:
    return name.replace("_", " ")
