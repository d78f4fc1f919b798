"""The search space of an nnictl config, checked before anything starts. NNI fails, or hangs, in its tuner."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, unknown_name

_LIKE = "{_type: choice, _value: […]}"
_LOW_HIGH, _LOW_HIGH_STEP = "[low, high]", "[low, high, step]"
_MEAN_SPREAD, _MEAN_SPREAD_STEP = "[mean, spread]", "[mean, spread, step]"
_TYPES = {
    "choice": "[value, …]",
    "randint": _LOW_HIGH,
    "uniform": _LOW_HIGH,
    "loguniform": _LOW_HIGH,
    "quniform": _LOW_HIGH_STEP,
    "qloguniform": _LOW_HIGH_STEP,
    "normal": _MEAN_SPREAD,
    "lognormal": _MEAN_SPREAD,
    "qnormal": _MEAN_SPREAD_STEP,
    "qlognormal": _MEAN_SPREAD_STEP,
}
_WIDE = 3.0  # standard deviations from the mean at which values of a normal distribution are tried


@dataclass(frozen=True)
class Dimension:
    """One key of a search space.

    Attributes:
        values: All values of a choice; of a range, the one that stands for all.
        probes: Further values of a range that its recipes must accept: the ends, and one between them.
        finite: Whether `values` are all values.
    """

    values: list[Any]
    probes: list[float]
    finite: bool


def parse_dimensions(space: object, source: str) -> dict[str, Dimension]:
    """Check a search space, and return its dimensions by key.

    Args:
        space: Content of `searchSpace`.
        source: Name of its source, for error messages, such as `config FILE`.

    Raises:
        InputError: NNI does not accept the search space. The message says where it is wrong, and what is allowed.
    """
    if not isinstance(space, Mapping):
        raise InputError(f"{source}: 'searchSpace' must be a mapping, got {_shown(space)}")
    return {key: _dimension(f"{source}: searchSpace.{_shown(key, quoted=False)}", key, d) for key, d in space.items()}


def _dimension(where: str, key: object, described: object) -> Dimension:
    if not isinstance(key, str) or not key:
        raise InputError(f"{where}: the keys of a search space must be strings, got {_shown(key)}")
    if not isinstance(described, Mapping) or set(described) != {"_type", "_value"}:
        raise InputError(f"{where} must be like {_LIKE}, got {_shown(described)}")
    kind, values = described["_type"], described["_value"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise InputError(f"{where}: {unknown_name('_type', _shown(kind, quoted=False), _TYPES)}")
    if not isinstance(values, list) or not values:
        raise InputError(f"{where}: the _value of a {kind} must be {_TYPES[kind]}, got {_shown(values)}")
    return _choice(where, values) if kind == "choice" else _range(where, kind, values)


def _choice(where: str, values: list[Any]) -> Dimension:
    seen = set()
    for value in values:
        if isinstance(value, Mapping) and "_name" in value:
            raise InputError(f"{where}: nested choices are not supported, got {_shown(value)}")
        try:
            text = json.dumps(value, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as reason:
            raise InputError(f"{where}: NNI sends values as JSON, which has no {_shown(value)}") from reason
        if text in seen:
            raise InputError(f"{where} has the value {_shown(value)} twice")
        seen.add(text)
    return Dimension(values, [], True)


def _range(where: str, kind: str, values: list[Any]) -> Dimension:
    form = _TYPES[kind]
    number = (int,) if kind == "randint" else (int, float)
    good = all(isinstance(v, number) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if not good or len(values) != form.count(",") + 1:
        whole = " in whole numbers" if kind == "randint" else " in numbers"
        raise InputError(
            f"{where}: the _value of a {kind} must be {form}{whole}, got {_shown(values)}{_number_hint(values)}"
        )
    first, second = values[:2]
    step = values[2] if len(values) == 3 else None
    if "normal" in kind:
        if second <= 0:
            raise InputError(f"{where}: the spread of a {kind} must be above 0, got {_shown(second)}")
    elif first >= second:
        raise InputError(f"{where}: the low end of a {kind} must be below its high end, got {_shown(values)}")
    elif "log" in kind and first <= 0:
        raise InputError(f"{where}: the low end of a {kind} must be above 0, got {_shown(first)}")
    if step is not None and step <= 0:
        raise InputError(f"{where}: the step of a {kind} must be above 0, got {_shown(step)}")
    if kind == "randint":  # the high end is excluded
        return Dimension([first], [second - 1], False)
    if kind in ("normal", "qnormal"):
        probes = [first, first - _WIDE * second, first + _WIDE * second]
    elif kind in ("lognormal", "qlognormal"):
        try:
            probes = [math.exp(first + k * second) for k in (0.0, -_WIDE, _WIDE)]
        except OverflowError as reason:
            raise InputError(f"{where}: a {kind} of {_shown(values)} has infinite values") from reason
    else:
        probes = [first, second, first + (0.37 * (second - first) if step is None else step)]
    if step is not None:
        # NNI rounds to multiples of the step, and keeps values of a range within it.
        probes = [round(value / step) * step for value in probes]
        if "normal" not in kind:
            probes = [min(max(value, first), second) for value in probes]
    return Dimension(probes[:1], probes[1:], False)


def _number_hint(values: list[Any]) -> str:
    """Say how to write a number that YAML, and so NNI as well, reads as a text, such as 1e-4."""
    for value in values:
        found = re.fullmatch(r"([-+]?\d+)(\.\d*)?[eE]([-+]?)(\d{1,3})", value) if isinstance(value, str) else None
        if found is not None:
            whole, fraction, sign, power = found.groups()
            number = f"{whole}{fraction or '.0'}e{sign or '+'}{power}"
            return f"; YAML reads {value} as a string, so write {number}"
    return ""


def _shown(value: object, *, quoted: bool = True) -> str:
    text = repr(value) if quoted else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
