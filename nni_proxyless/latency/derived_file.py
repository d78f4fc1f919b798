"""Derived quantities in the files of latency tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import LatencyTableError, shown
from . import table_parts as parts
from .derived import Derived

_KEYS = ("name", "labels", "steps", "values")


def derived_to(quantity: Derived) -> dict[str, Any]:
    """Return the content of a quantity in a table file.

    Each item of `steps` is a layer. Its states are separated by commas, and the next states of a state by spaces.
    """
    return {
        "name": quantity.name,
        "labels": list(quantity.labels),
        "steps": [", ".join(" ".join(map(str, row)) for row in step) for step in quantity.steps],
        "values": list(quantity.values),
    }


def derived_from(content: object, candidates: Mapping[str, Sequence[str]], where: str) -> tuple[Derived, ...]:
    """Read the quantities of a table file.

    Args:
        content: Value of the key `derived`.
        candidates: Candidates of each choice, by label.
        where: Place in the file, for error messages.

    Raises:
        LatencyTableError: A key is unknown, or a diagram is malformed.
    """
    if not isinstance(content, list):
        raise LatencyTableError(f"{where}.derived must be a list, got {shown(content)}")
    found = [_quantity(row, candidates, f"{where}: derived {n}") for n, row in enumerate(content, start=1)]
    names = [quantity.name for quantity in found]
    if len(set(names)) < len(names) or set(names) & set(candidates):
        raise LatencyTableError(f"{where}: derived quantities must have different names, which are not labels")
    return tuple(found)


def _quantity(row: object, candidates: Mapping[str, Sequence[str]], where: str) -> Derived:
    own = parts.mapping(row, where, _KEYS)
    name = parts.text(own.get("name"), f"{where}: name")
    labels, steps, values = own.get("labels"), own.get("steps"), own.get("values")
    if not isinstance(labels, list) or not labels or not all(isinstance(k, str) and k in candidates for k in labels):
        raise LatencyTableError(f"{where}: labels must be labels of the candidates, got {shown(labels)}")
    if len(set(labels)) < len(labels):
        raise LatencyTableError(f"{where}: a label is listed twice: {shown(labels)}")
    good = isinstance(values, list) and values and all(isinstance(value, str) for value in values)
    if not good or len(set(values)) < len(values):  # type: ignore[arg-type]
        raise LatencyTableError(f"{where}: values must be a list of different strings, got {shown(values)}")
    if not isinstance(steps, list) or len(steps) != len(labels):
        raise LatencyTableError(f"{where}: steps must have an item for each label, got {shown(steps)}")
    tables, states = [], 1
    for label, step in zip(labels, steps, strict=True):
        table = _table(step, len(candidates[label]), f"{where}: steps of '{label}'")
        if len(table) != states:
            raise LatencyTableError(f"{where}: steps of '{label}' must have {states} states, got {len(table)}")
        states = max(after for row in table for after in row) + 1
        tables.append(table)
    if states > len(values):  # type: ignore[arg-type]
        raise LatencyTableError(f"{where}: the steps lead to {states} values, and only {len(values)} are listed")  # type: ignore[arg-type]
    return Derived(name, tuple(labels), tuple(tables), tuple(values))  # type: ignore[arg-type]


def _table(step: object, size: int, where: str) -> tuple[tuple[int, ...], ...]:
    # A single number is no text in YAML.
    rows = [row.split() for row in str(step).split(",")] if isinstance(step, (str, int)) else []
    good = rows and all(
        len(row) == size and all(w.isascii() and w.isdigit() and len(w) < 10 for w in row) for row in rows
    )
    if not good:
        raise LatencyTableError(f"{where} must be strings of {size} numbers for each state, got {shown(step)}")
    return tuple(tuple(map(int, row)) for row in rows)
