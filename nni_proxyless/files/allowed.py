"""Parts of the messages about settings that are refused: which errors they name, and what a field allows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..errors import clipped, shown
from ..values import LEAST_NUMBER, MOST_NUMBER

MOST_ERRORS = 3  # largest number of errors in one message
LONGEST_VALUE = 100  # largest number of characters of a value in a message


def misspelt_first(error: ValidationError) -> list[ErrorDetails]:
    """Return all errors. A misspelt key comes first, because it may be the reason of other errors."""
    return sorted(error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden")


def and_more(found: Sequence[object]) -> str:
    """Return the end of a message that names the first `MOST_ERRORS` of some errors."""
    return f" (and {len(found) - MOST_ERRORS} more)" if len(found) > MOST_ERRORS else ""


def literals(annotation: Any) -> tuple[str, ...]:
    """Return the allowed values of a `Literal`, which may be optional; empty for other types."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := literals(part))), ())


def allowed(annotation: Any, metadata: Iterable[Any], received: Any) -> str:
    """Describe the allowed values of a field by a noun phrase. A largest value is named only to those who exceed it."""
    kind, bounds = _kind_and_bounds(annotation, metadata)
    if kind is int:
        exceeds = isinstance(received, (int, float)) and "le" in bounds and received > bounds["le"]
        most = f" to {bounds['le']}" if exceeds else ""
        return "a whole number" + (f" from {bounds['ge']}{most}" if "ge" in bounds else "")
    if kind is float:
        number = received if isinstance(received, (int, float)) else 0
        if bounds.get("le") == MOST_NUMBER and not MOST_NUMBER < number < math.inf:
            del bounds["le"]
        if bounds.get("ge") == LEAST_NUMBER:
            if 0 < number < LEAST_NUMBER:
                return f"a number from {LEAST_NUMBER:g}, because smaller ones count as 0"
            bounds = {"gt": 0.0, **{name: bound for name, bound in bounds.items() if name != "ge"}}
        ranges = {
            ("gt",): "greater than {gt:g}",
            ("ge",): "of at least {ge:g}",
            ("ge", "lt"): "from {ge:g} to below {lt:g}",
            ("gt", "lt"): "between {gt:g} and {lt:g}",
            ("gt", "le"): "above {gt:g} and at most {le:g}",
            ("ge", "le"): "from {ge:g} to {le:g}",
        }
        text = ranges.get(tuple(bounds))
        return "a number" + (f" {text.format(**bounds)}" if text else "")
    return {str: "a string", bool: "true or false", dict: "a mapping"}.get(kind, "of another type")


def _kind_and_bounds(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, dict[str, Any]]:
    bounds = {
        name: getattr(part, name)
        for name in ("gt", "ge", "lt", "le")
        for part in metadata
        if getattr(part, name, None) is not None
    }
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        spread = [part for one in more for part in (getattr(one, "metadata", None) or [one])]
        kind, deeper = _kind_and_bounds(inner, spread)
        return kind, {**deeper, **bounds}
    options = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is not dict and options:
        kind, deeper = _kind_and_bounds(options[0], ())
        return kind, {**deeper, **bounds}
    return get_origin(annotation) or annotation, bounds


def shown_value(value: Any) -> str:
    return "nothing" if value is None else f"{clipped(shown(value), LONGEST_VALUE)} ({type(value).__name__})"
