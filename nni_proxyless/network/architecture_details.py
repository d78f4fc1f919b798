"""Checks of the values in an architecture file, other than its space and whether the choices fit it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArchitectureError, shown
from ..files.writing import check_name
from ..values import MOST_LATENCY_MS, is_number, is_whole

_KEYS = (
    "schema", "space", "choices", "target", "strategy", "budget_ms", "predicted_latency_ms", "measured_latency_ms",
    "parameters", "multiply_adds", "metrics", "seed", "versions", "trial_parameters", "warnings", "budgets",
)  # fmt: skip
_MOST_CHOICES = 10_000
_TUPLE = "tuple"
_DEEPEST = 3  # lists inside each other


def file_details(content: Mapping[str, Any], source: str, schema: str) -> dict[str, Any]:
    """Check the content of an architecture file, and return the fields of `Architecture` except space and choices.

    Args:
        content: Content of the file.
        source: Name of the file in error messages.
        schema: Name of the schema that the file must have.

    Raises:
        ArchitectureError: A key is missing or unknown, or a value has the wrong type or is out of range.
    """
    if content.get("schema") != schema:
        raise ArchitectureError(f"{source}: schema must be '{schema}', got {shown(content.get('schema'))}")
    unknown = [key for key in content if key not in _KEYS]
    if unknown:
        raise ArchitectureError(f"{source}: unknown keys {shown(unknown)} (allowed: {', '.join(sorted(_KEYS))})")
    identity, choices = content.get("space"), content.get("choices")
    if not isinstance(identity, Mapping) or not all(isinstance(identity.get(key), str) for key in ("name", "hash")):
        raise ArchitectureError(f"{source}: 'space' must be a mapping with name and hash, got {shown(identity)}")
    check_name(identity["name"], f"{source}: the name of 'space'", ArchitectureError)
    if isinstance(content.get("target"), str):
        check_name(content["target"], f"{source}: 'target'", ArchitectureError)
    if not isinstance(choices, Mapping) or not 0 < len(choices) <= _MOST_CHOICES:
        raise ArchitectureError(f"{source}: 'choices' must map labels to candidates, got {shown(choices)}")
    for label, candidate in choices.items():
        if not isinstance(label, str) or not _is_candidate(candidate):
            raise ArchitectureError(
                f"{source}: 'choices' must map labels to candidates, got {shown(candidate)} for {shown(label)}"
            )
    latencies = ("budget_ms", "predicted_latency_ms", "measured_latency_ms")
    warnings = content.get("warnings") or []
    if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
        raise ArchitectureError(f"{source}: 'warnings' must be a list of strings, got {shown(warnings)}")
    seed = content.get("seed")
    if seed is not None and not is_whole(seed):
        raise ArchitectureError(f"{source}: 'seed' must be a whole number from 0 or null, got {shown(seed)}")
    return {
        **{key: _latency(content.get(key), f"{source}: '{key}'") for key in latencies},
        **{key: _text(content.get(key), f"{source}: '{key}'") for key in ("target", "strategy")},
        "metrics": _mapping(content.get("metrics", {}), f"{source}: 'metrics'", "numbers"),
        "versions": _mapping(content.get("versions", {}), f"{source}: 'versions'", "strings"),
        "trial_parameters": _mapping(content.get("trial_parameters", {}), f"{source}: 'trial_parameters'", ""),
        "seed": seed,
        "warnings": tuple(warnings),
        "budgets": _budgets(content.get("budgets") or {}, f"{source}: 'budgets'"),
    }


def _budgets(value: object, where: str) -> dict[str, dict[str, float]]:
    if not isinstance(value, Mapping) or len(value) > _MOST_CHOICES:
        raise ArchitectureError(f"{where} must map quantities to their limit and value, got {shown(value)}")
    for name, numbers in value.items():
        good = isinstance(numbers, Mapping) and set(numbers) == {"limit", "value"}
        if not isinstance(name, str) or not good or not all(is_number(number, 0) for number in numbers.values()):
            raise ArchitectureError(f"{where} must map quantities to their limit and value, got {shown(numbers)}")
    return {name: {key: float(number) for key, number in numbers.items()} for name, numbers in value.items()}


def stored_choices(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return choices as the file has them. JSON has no tuples, so `(3, 1)` is stored as `{"tuple": [3, 1]}`."""
    return {label: _stored(candidate) for label, candidate in choices.items()}


def restored_choices(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Return the choices of which a file has what `stored_choices` returned."""
    return {label: _restored(candidate) for label, candidate in choices.items()}


def _stored(candidate: Any) -> Any:
    if isinstance(candidate, tuple):
        return {_TUPLE: [_stored(part) for part in candidate]}
    return [_stored(part) for part in candidate] if isinstance(candidate, list) else candidate


def _restored(candidate: Any) -> Any:
    if isinstance(candidate, Mapping):
        return tuple(_restored(part) for part in candidate[_TUPLE])
    return [_restored(part) for part in candidate] if isinstance(candidate, list) else candidate


def _is_candidate(value: object, depth: int = 0) -> bool:
    """Whether a value can be a candidate: a text, number, truth value or null, or a list or tuple of such."""
    if isinstance(value, Mapping) and set(value) == {_TUPLE} and isinstance(value[_TUPLE], list):
        value = value[_TUPLE]
    if isinstance(value, list):
        return depth < _DEEPEST and all(_is_candidate(part, depth + 1) for part in value)
    return value is None or isinstance(value, (str, bool)) or is_number(value)


def _latency(value: object, where: str) -> float | None:
    if value is None:
        return None
    if not is_number(value, 0, MOST_LATENCY_MS) or value == 0:
        raise ArchitectureError(f"{where} must be a positive number or null, got {shown(value)}")
    return float(value)


def _text(value: object, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ArchitectureError(f"{where} must be a string or null, got {shown(value)}")
    return value


def _mapping(value: object, where: str, of: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ArchitectureError(f"{where} must be a mapping, got {shown(value)}")
    for key, part in value.items():
        good = {"numbers": is_number(part), "strings": isinstance(part, str), "": True}[of]
        if not isinstance(key, str) or not good:
            raise ArchitectureError(f"{where} must be a mapping to {of}, got {shown(part)} for {shown(key)}")
    return dict(value)
