"""Checks of result files, so that a report lacks only the content of a damaged file.

Each function returns what can be shown, and messages about the rest. `files/reading.py` has already parsed the files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import InputError, clipped, shown
from ..files.writing import check_name

Rows = list[dict[str, str]]
LARGEST = 1e9  # larger numbers, also negative ones, cannot be drawn
_LONGEST_TEXT = 100
_MOST_QUANTITIES = 4  # of a front
# Columns of a history that figures need; all of them are numbers.
_HISTORY = ("epoch", "default", "latency_ms", "expected_latency_ms", "entropy")
_COSTS = ("epochs", "seconds", "peak_memory_mib", "weight_steps", "architecture_steps")


def clean(text: object, most: int = _LONGEST_TEXT) -> str:
    """Cut a text and replace characters that cannot be written or printed, as in names of files that are not UTF-8."""
    return "".join(c if c.isprintable() else "\ufffd" for c in clipped(str(text), most))


def number_of(value: object) -> float | None:
    """Return a finite number that can be drawn, given as a number or as text; `None` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) <= LARGEST else None


def latency_of(value: object) -> float | None:
    """Return a latency, which is positive; `None` for anything else."""
    number = number_of(value)
    return number if number is not None and number > 0 else None


def checked_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a search that a report uses.

    Raises:
        InputError: The target or the strategy has no name, or the targets are not a mapping.
    """
    target = check_name(recipe.get("target"), "'target'", InputError)
    strategy = recipe.get("strategy", "proxyless")
    if not isinstance(strategy, str) or not strategy.strip():
        raise InputError(f"'strategy' must be a name, got {shown(strategy)}")
    targets = recipe.get("targets") or {}
    if not isinstance(targets, Mapping):
        raise InputError(f"'targets' must be a mapping, got {shown(targets)}")
    return {**recipe, "target": target, "strategy": clean(strategy), "targets": targets}


def checked_history(rows: Rows) -> tuple[Rows, str | None]:
    """Return the rows whose numbers can be drawn, and what is wrong with the others."""
    good, faults = [], []
    for number, row in enumerate(rows, start=1):
        bad = next((key for key in _HISTORY if number_of(row.get(key)) is None), None)
        if bad is None and not _whole(row["epoch"]):
            bad = "epoch"
        if bad is None and row.get("expected_over_budget") and number_of(row["expected_over_budget"]) is None:
            bad = "expected_over_budget"
        if bad is None:
            good.append(row)
        else:
            faults.append(f"row {number}: '{bad}' must be a number, got {shown(row.get(bad))}")
    return good, _first(faults, "row")


def checked_probabilities(rows: Rows) -> tuple[Rows, str | None]:
    """Return all rows if each candidate has a probability in each epoch; otherwise none, and what is wrong."""
    counts: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows, start=1):
        probability = number_of(row.get("probability"))
        if probability is None or not 0 <= probability <= 1 or not _whole(row.get("epoch")):
            return [], f"row {number} must have a whole epoch and a probability from 0 to 1, got {shown(row)}"
        if not row.get("layer") or not row.get("candidate"):
            return [], f"row {number} must name a layer and a candidate, got {shown(row)}"
        counts.setdefault((row["layer"], row["candidate"]), []).append(int(row["epoch"]))
    epochs = sorted({epoch for found in counts.values() for epoch in found})
    odd = next((name for name, found in counts.items() if sorted(found) != epochs), None)
    if odd is not None:
        return [], f"candidate {shown(odd[1])} of layer {shown(odd[0])} lacks epochs, or has some twice"
    return rows, None


def checked_cost(cost: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the numbers of a cost and its machine, and what is wrong with the others."""
    good: dict[str, Any] = {}
    faults = []
    for key in _COSTS:
        value = cost.get(key)
        if value is None or (number_of(value) is not None and not isinstance(value, str)):
            good[key] = value
        else:
            faults.append(f"'{key}' must be a number, got {shown(value)}")
    machine = cost.get("machine")
    if isinstance(machine, Mapping):
        good["machine"] = {key: clean(machine.get(key, "unknown")) for key in ("processor", "cores")}
    elif machine is not None:
        faults.append(f"'machine' must be a mapping, got {shown(machine)}")
    return good, _first(faults, "value")


def check_card(card: Mapping[str, Any]) -> None:
    """Check that a model card has an accuracy on held-out images.

    Raises:
        InputError: The card has no such accuracy, or its test accuracy is none.
    """
    for part in ("validation", "test"):
        found: object = card
        for key in ("results", part):
            found = found.get(key) if isinstance(found, Mapping) else None
        if part == "test" and found is None:
            continue  # the data set has no test part
        top1 = found.get("top1") if isinstance(found, Mapping) else None
        if isinstance(top1, str) or number_of(top1) is None:
            raise InputError(f"'results', '{part}', 'top1' must be an accuracy, got {shown(top1)}")


def checked_export(content: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the target and the measured files of an export, and what is wrong with the others."""
    rows = content.get("formats")
    faults, good = [], []
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        rows, faults = [], [f"'formats' must be a list, got {shown(rows)}"]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping) or not isinstance(row.get("file"), str):
            faults.append(f"format {number} must have a 'file', got {shown(row)}")
            continue
        latencies = {key: row.get(key) for key in ("predicted_latency_ms", "measured_latency_ms")}
        bad = [key for key, value in latencies.items() if value is not None and latency_of(value) is None]
        if bad:
            faults.append(f"format {number}: '{bad[0]}' must be a positive number, got {shown(latencies[bad[0]])}")
        else:
            parts = {key: number_of(row.get(key)) for key in ("agreement", "accuracy_loss")}
            latencies = {key: latency_of(value) for key, value in latencies.items()}
            good.append({"file": clean(row["file"]), **latencies, **parts})
    return {"target": clean(content.get("target")), "formats": good}, _first(faults, "format")


def checked_front(rows: Rows) -> tuple[tuple[str, ...], list[dict[str, Any]], str | None]:
    """Return the quantities of a front and their values, and what is wrong with the file.

    The quantities are the first columns of numbers, after the name of the latency table or of a network's file. The
    layers follow them.
    """
    quantities: list[str] = []
    for key in rows[0] if rows else ():
        if key in ("table", "file"):
            continue
        if len(quantities) == _MOST_QUANTITIES or any(number_of(row.get(key)) is None for row in rows):
            break
        quantities.append(key)
    if len(quantities) < 2:
        return (), [], "a front must have at least two columns of numbers" if rows else None
    named = {"table"} & set(rows[0])
    good = [{**{key: row[key] for key in named}, **{key: number_of(row[key]) for key in quantities}} for row in rows]
    return tuple(quantities), good, None


def _whole(value: object) -> bool:
    number = number_of(value)
    return number is not None and number == int(number) and isinstance(value, str) and value.strip().isdecimal()


def _first(faults: Iterable[str], what: str) -> str | None:
    found = list(faults)
    if not found:
        return None
    more = f" (and {len(found) - 1} more {what}{'s' if len(found) > 2 else ''})" if len(found) > 1 else ""
    return f"{found[0]}{more}"
