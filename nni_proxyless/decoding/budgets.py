"""Budgets in several quantities, as users state them: `{phone: 40, parameters: 250000, peak_memory: 256KiB}`.

A budget is a limit on the latency of a target, or on a quantity of `QUANTITIES`. This module imports no torch, so that
a recipe can be checked without it. `constraints_of` turns budgets into the constraints that `decoding.constraints`
decodes within.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, shown, unknown_name
from ..values import is_number, plain_number

if TYPE_CHECKING:  # a recipe is checked without torch
    from ..latency.costs import SpaceCosts
    from ..network.operators import Operator
    from ..network.space_spec import SpaceSpec
    from .constraint import Constraint

# Quantities that follow from a network's description, and their units.
QUANTITIES = {
    "parameters": "params",
    "multiply_adds": "flops",
    "file_size": "bytes",
    "file_size_int8": "bytes",
    "peak_memory": "bytes",
    "peak_memory_int8": "bytes",
}
_MAXIMA = ("peak_memory", "peak_memory_int8")
# A latency table without a name of its own has this one.
LATENCY = "latency"

_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_COUNTS: Mapping[str, float] = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MILLISECONDS = {"": 1.0, "ms": 1.0, "s": 1000.0, "us": 0.001, "µs": 0.001}
_SPELLING = {
    "b": "B", "kb": "kB", "mb": "MB", "gb": "GB", "kib": "KiB", "mib": "MiB", "gib": "GiB", "m": "M", "g": "G",
    "µs": "us",
}  # fmt: skip
_UNITS: dict[str, Mapping[str, float]] = {"bytes": {"": 1, **_BYTES}, "ms": _MILLISECONDS}
_NUMBER = re.compile(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*([A-Za-zµ%]*)\s*\Z")


@dataclass(frozen=True)
class Limit:
    """Limit of one budget: a value in the unit of the quantity, or a fraction of the largest network's value.

    Attributes:
        name: Name of the quantity: a target, or one of `QUANTITIES`.
        value: Limit in milliseconds, bytes or counts; `None` if it is a fraction.
        fraction: Fraction of the largest network's value, above 0 and at most 1; `None` if it is a value.
    """

    name: str
    value: float | None = None
    fraction: float | None = None

    def resolve(self, largest: float) -> float:
        """Return the limit in the unit of the quantity.

        Args:
            largest: Value of the largest network.
        """
        return self.value if self.value is not None else (self.fraction or 1.0) * largest

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name} <= {100 * (self.fraction or 0):g} %"
        return f"{self.name} <= {amount(self.name, self.value)}"


def amount(name: str, value: float) -> str:
    """Return a value without its unit: latencies with six digits, counts and bytes as whole numbers where they are."""
    return f"{value:.12g}" if name in QUANTITIES else f"{value:.6g}"


def parse_limit(name: str, limit: object) -> Limit:
    """Read the limit of one budget.

    Args:
        name: Name of the quantity. All names outside `QUANTITIES` are targets, whose limits are milliseconds.
        limit: Number in the unit of the quantity, or text such as `256KiB`, `1.5MB`, `40 ms`, `2.5M` or `60%`. A
            percentage is a part of the largest network's value.

    Raises:
        InputError: The limit is not above 0, or a text is not understood or has a unit that does not fit the quantity.
    """
    unit = QUANTITIES.get(name, "ms")
    known = _UNITS.get(unit, _COUNTS)
    examples = {"bytes": "256KiB, 1MB or 300000", "ms": "40 or '40 ms'"}.get(unit, "250000 or 1.5M")
    limit = plain_number(limit)
    wrong = InputError(
        f"budget of {shown(name)}: the limit must be above 0, such as {examples}, or 60%, got {shown(limit)}"
    )
    if isinstance(limit, str):
        units = ", ".join(dict.fromkeys(_SPELLING.get(key, key) for key in known if key))
        unclear = InputError(
            f"budget of {shown(name)}: the text {shown(limit)} is not understood; write a number, with one of the "
            f"units {units} or without a unit, such as {examples}, or a percentage such as 60%"
        )
        match = _NUMBER.match(limit)
        if match is None:
            raise wrong if _NUMBER.match(limit.strip().removeprefix("-")) else unclear
        number, suffix = float(match[1]), match[2]
        if suffix == "%":
            if not 0 < number <= 100:
                raise InputError(f"budget of {shown(name)}: a percentage must be above 0 and at most 100, got {limit}")
            return Limit(name, fraction=number / 100)
        factor = known.get(suffix.lower())
        if factor is None:
            raise unclear
        value = number * factor
    elif is_number(limit):
        value = float(limit)
    else:
        raise wrong
    if not 0 < value < 1e18 or not math.isfinite(value):
        raise wrong
    return Limit(name, value)


def parse_budgets(budgets: object) -> tuple[Limit, ...]:
    """Read a mapping from names of quantities to limits; see `parse_limit`.

    Raises:
        InputError: It is not a mapping, or a limit is not allowed.
    """
    if not isinstance(budgets, Mapping) or not all(isinstance(name, str) and name for name in budgets):
        raise InputError(
            f"budgets must map targets or quantities ({', '.join(QUANTITIES)}) to limits, got {shown(budgets)}"
        )
    return tuple(parse_limit(name, limit) for name, limit in budgets.items())


def parse_expressions(expressions: Iterable[str]) -> tuple[Limit, ...]:
    """Read budgets such as `phone<=40` and `parameters <= 250000`. If a name has several budgets, all of them hold.

    Raises:
        InputError: A text has another form, or a limit is not allowed.
    """
    limits = []
    for text in expressions:
        name, separator, limit = text.partition("<=")
        if not separator or not name.strip() or not limit.strip():
            raise InputError(
                f"a budget has the form NAME<=LIMIT, such as 'phone<=40' or 'peak_memory<=256KiB', got {shown(text)}"
            )
        limits.append(parse_limit(name.strip(), limit.strip()))
    return tuple(limits)


def check_names(limits: Iterable[Limit], targets: Iterable[str], hint: str = "") -> None:
    """Check that every budget is of a known target or quantity.

    Args:
        limits: Budgets.
        targets: Names of the targets.
        hint: What the message of an unknown name says in addition.

    Raises:
        InputError: There is no such target or quantity, or a target has the name of a quantity. The message lists all.
    """
    targets = list(targets)
    for limit in limits:
        if limit.name in QUANTITIES and limit.name in targets:
            raise InputError(f"target '{limit.name}' has the name of a quantity; rename it, so that budgets are clear")
        if limit.name not in QUANTITIES and limit.name not in targets:
            raise InputError(unknown_name("target or quantity", limit.name, [*targets, *QUANTITIES]) + hint)


def quantity_of(name: str, operator: Operator) -> int:
    """Compute a quantity of `QUANTITIES` for one operator, for one image."""
    if name == "parameters":
        return operator.parameters
    if name == "multiply_adds":
        return operator.multiply_adds
    from ..network.footprint import file_bytes, peak_bytes

    dtype: Any = "int8" if name.endswith("_int8") else "float32"
    return peak_bytes(operator, dtype) if name in _MAXIMA else file_bytes(operator, dtype)


def quantity_of_network(name: str, operators: Sequence[Operator]) -> int:
    """Compute a quantity of `QUANTITIES` for a network, for one image, from its operators in execution order."""
    if name not in _MAXIMA:
        return sum(quantity_of(name, operator) for operator in operators)
    from ..network.footprint import network_peak_bytes

    return network_peak_bytes(operators, "int8" if name.endswith("_int8") else "float32")


def quantity_costs(name: str, spec: SpaceSpec) -> SpaceCosts:
    """Compute a quantity of `QUANTITIES` for each candidate of a space.

    Args:
        name: Name of the quantity.
        spec: Description of the space.

    Returns:
        Costs, whose `fixed` is the sum over the operators of every network; for peak memory it is their maximum.
    """
    from ..latency.costs import SpaceCosts

    fixed = [quantity_of(name, operator) for operator in spec.fixed_operators]
    if name == "peak_memory_int8":
        from ..network.footprint import conversion_bytes

        fixed.append(conversion_bytes(spec.input_shape))
    return SpaceCosts(
        float(max(fixed) if name in _MAXIMA else sum(fixed)),
        {layer.label: layer.names for layer in spec.layers},
        {
            layer.label: tuple(float(quantity_of(name, op)) if op else 0.0 for op in layer.candidates.values())
            for layer in spec.layers
        },
        QUANTITIES[name],
    )


def constraints_of(
    limits: Iterable[Limit],
    latencies: Mapping[str, SpaceCosts],
    spec: SpaceSpec | None,
    counts: Mapping[str, SpaceCosts] | None = None,
) -> tuple[Constraint, ...]:
    """Create the constraints that correspond to budgets in a space.

    Args:
        limits: Budgets.
        latencies: Latency tables applied to the space, by the name of the target.
        spec: Description of the space; `None` for a space that does not describe its operators.
        counts: Costs of quantities that do not follow from a description, by the name of the quantity.

    Raises:
        InputError: There is no such target or quantity, or a quantity is not known because the space does not describe
            its operators.
    """
    from .constraint import Constraint

    limits = list(limits)
    check_names(limits, latencies)
    made = []
    for limit in limits:
        unlimited = unlimited_quantity(limit.name, latencies, spec, counts)
        value = limit.resolve(unlimited.largest)
        made.append(Constraint(limit.name, value, unlimited.costs, unlimited.combine, limit.fraction))
    return tuple(made)


def unlimited_quantity(
    name: str,
    latencies: Mapping[str, SpaceCosts],
    spec: SpaceSpec | None,
    counts: Mapping[str, SpaceCosts] | None = None,
) -> Constraint:
    """Create the constraint of a quantity in a space, without a limit.

    Args:
        name: Name of a target, or one of `QUANTITIES`.
        latencies: Latency tables applied to the space, by the name of the target.
        spec: Description of the space; `None` for a space that does not describe its operators.
        counts: Costs of quantities that do not follow from a description, by the name of the quantity.

    Raises:
        InputError: The quantity is not known because the space does not describe its operators.
    """
    from .constraint import Constraint

    if name in latencies:
        return Constraint(name, math.inf, latencies[name])
    if counts and name in counts:
        return Constraint(name, math.inf, counts[name], "max" if name in _MAXIMA else "sum")
    if spec is None:
        known = f"; known: {', '.join([*latencies, *(counts or {})])}" if latencies or counts else ""
        if counts and name == "peak_memory":
            raise InputError(
                "budget of 'peak_memory': the table of the space has no peak memory; measure the space with "
                f"measure_model_space(…, memory=True), which gives the reason if the memory cannot be known{known}"
            )
        raise InputError(
            f"budget of '{name}': this model space does not describe its operators, so it can have budgets of latency, "
            "parameters, multiply_adds and, with memory=True, peak_memory only, with a table of measure_model_space in "
            f"latency= or counts={known}"
        )
    return Constraint(name, math.inf, quantity_costs(name, spec), "max" if name in _MAXIMA else "sum")
