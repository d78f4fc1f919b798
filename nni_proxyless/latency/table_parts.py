"""The parts of a latency table's file, with the checks of their values."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..errors import InputError, LatencyTableError, shown, unknown_name
from ..files.writing import check_name
from ..values import (
    MOST_COUNT,
    MOST_LATENCY_MS,
    MOST_NETWORKS,
    MOST_OPERATIONS,
    MOST_WHOLE,
    is_number,
    is_whole,
)  # fmt: skip
from .device import Device
from .entries import FIELDS, Choice, Entry, entry_from_dict

Unit = Literal["ms", "flops", "params"]
# Key of an entry's cost in a file, by unit. The key names the unit.
COST_KEYS: dict[str, str] = {"ms": "latency_ms", "flops": "flops", "params": "params"}
_CORRECTIONS = ("ms_per_million_values", "ms_per_million_parameters")
_MOST_SCALE = 1e6
NOTES = ("not known", "not stated", "unknown", "None")  # instead of a date or a number format
# Real numbers, such as bfloat16, fp8_e4m3, uint8 or w8a16; tables of counts have `any`.
_FORMAT = re.compile(
    rf"(?:b|t)?(?:float|fp|f)\d+(?:_?\w+)?|u?int\d+(?:_\w+)?|w\d+a\d+|mixed.{{0,40}}|any|{'|'.join(NOTES)}"
)
# Backends whose tables this version knows; `by_name.BACKENDS` has those that measure.
BACKEND_NAMES = (
    "torch", "onnxruntime", "openvino", "mnn", "ncnn", "command", "flops", "params", "fit", "published",
)  # fmt: skip


@dataclass(frozen=True)
class OperatorCost:
    """The cost of one entry in the table's unit.

    Attributes:
        cost: Median cost without the overhead of calling the backend. Its key in a file names the unit: `latency_ms`,
            `flops` or `params`.
        spread: Standard error of the median, in the same unit (`spread_ms` in a file); 0 for counted costs.
        runs: Number of samples.
    """

    cost: float
    spread: float = 0.0
    runs: int = 1


@dataclass(frozen=True)
class Calibration:
    """Prediction of a network's latency from the sum of its operators' costs: scale · Σ + offset.

    Attributes:
        scale: Factor on the sum of the operators' costs.
        offset_ms: Latency added once per network, in milliseconds.
        networks: Number of whole networks to which the calibration was fitted; 0 if the table is not calibrated.
        mean_relative_error: Mean of |predicted - measured| / measured. If operators were measured, the mean is over the
            networks of the fit. If the whole table was fitted, it is over the networks left out in cross-validation.
        architectures: Networks of the fit, each as the names of its candidates in layer order. Validation excludes
            them.
        ms_per_million_values: Correction included in the operators' costs, in milliseconds per million input and output
            values of one image. It was added to the latency of the operator measured alone, and is negative where
            conversions of the memory layout were subtracted.
        ms_per_million_parameters: Correction included in the operators' costs, in milliseconds per million parameters.
    """

    scale: float = 1.0
    offset_ms: float = 0.0
    networks: int = 0
    mean_relative_error: float | None = None
    architectures: tuple[str, ...] = ()
    ms_per_million_values: float = 0.0
    ms_per_million_parameters: float = 0.0

    @property
    def error_text(self) -> str:
        """End of a sentence about the table that says how well it predicts networks; empty without calibration."""
        if not self.networks or self.mean_relative_error is None:
            return ""
        return (
            f"; the table predicts {self.networks} measured networks with a mean error of "
            f"{100 * self.mean_relative_error:.1f} %"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the keys `calibration` and, if there are any, `corrections` of a table file."""
        corrections = {name: getattr(self, name) for name in _CORRECTIONS}
        return {
            "calibration": {
                **{key: value for key, value in asdict(self).items() if key not in _CORRECTIONS},
                "architectures": list(self.architectures),
            },
            **({"corrections": corrections} if any(corrections.values()) else {}),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str) -> Calibration:
        """Create the calibration from the content of a table file. Error messages call the file `source`.

        Raises:
            LatencyTableError: A key is unknown, or a value has the wrong type or is out of range.
        """
        own = mapping(content.get("calibration", {}), f"{source}: calibration", set(Calibration.__annotations__))
        corrections = mapping(content.get("corrections", {}), f"{source}: corrections", _CORRECTIONS)
        where = f"{source}: calibration"
        scale = number(own.get("scale", 1.0), f"{where}.scale", 0, _MOST_SCALE)
        if scale <= 0:
            raise LatencyTableError(f"{where}.scale must be greater than 0, got {scale}")
        architectures = own.get("architectures", [])
        if not isinstance(architectures, list) or not all(isinstance(text, str) for text in architectures):
            raise LatencyTableError(f"{where}.architectures must be a list of strings, got {shown(architectures)}")
        error = own.get("mean_relative_error")
        return cls(
            scale,
            number(own.get("offset_ms", 0.0), f"{where}.offset_ms", -MOST_LATENCY_MS),
            whole(own.get("networks", 0), f"{where}.networks", 0, MOST_NETWORKS),
            None if error is None else number(error, f"{where}.mean_relative_error", 0),
            tuple(architectures),
            *(
                number(corrections.get(name, 0.0), f"{source}: corrections.{name}", -MOST_LATENCY_MS)
                for name in _CORRECTIONS
            ),
        )


def operators_from(rows: object, unit: Unit, source: str) -> dict[Entry, OperatorCost]:
    """Create the costs of the entries from the value of the key `operators` of a table file.

    Raises:
        LatencyTableError: There are no operators, an operator is listed twice, or a value is missing or invalid.
    """
    if not isinstance(rows, list) or not rows:
        raise LatencyTableError(f"{source}: 'operators' must be a non-empty list, got {shown(rows)}")
    key, most = COST_KEYS[unit], MOST_LATENCY_MS if unit == "ms" else MOST_OPERATIONS
    found: dict[Entry, OperatorCost] = {}
    for position, row in enumerate(rows, start=1):
        where = f"{source}: operator {position}"
        mapping(row, where, (*FIELDS, key, "spread_ms", "runs"))
        try:
            entry = entry_from_dict(row)
        except InputError as reason:
            raise LatencyTableError(f"{where}: {reason}") from reason
        if entry in found:
            raise LatencyTableError(f"{where} is a duplicate: {entry}")
        cost = number(row.get(key), f"{where} ({entry}): {key}", most=most)
        # A candidate's cost is relative to the cheapest one of its layer and may be 0. An operator's cost may not.
        if cost < 0 or (cost == 0 and not isinstance(entry, Choice)):
            raise LatencyTableError(f"{where} ({entry}): {key} must be greater than 0, got {cost}")
        spread = number(row.get("spread_ms", 0.0), f"{where}: spread_ms", 0)
        found[entry] = OperatorCost(cost, spread, whole(row.get("runs", 1), f"{where}: runs", 1, MOST_COUNT))
    return found


def device_from(content: object, source: str) -> Device:
    """Create the device from the value of the key `device` of a table file.

    Raises:
        LatencyTableError: The value is not a mapping, a key is unknown, or a value has the wrong type.
    """
    device = mapping(content, f"{source}: device", ("name", "processor", "cores"))
    return Device(
        text(device.get("name"), f"{source}: device.name"),
        text(device.get("processor"), f"{source}: device.processor"),
        whole_or_none(device.get("cores"), f"{source}: device.cores", 1_000_000),
    )


def shape_from(value: object, source: str) -> tuple[int, ...] | None:
    """Create the shape from the value of the key `input_shape` of a table file, or return `None` for `None`.

    Raises:
        LatencyTableError: The value is not a list of whole numbers from 1.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise LatencyTableError(f"{source}: input_shape must be a list of whole numbers, got {shown(value)}")
    return tuple(whole(size, f"{source}: input_shape", 1) for size in value)


def labels_from(value: object, known: Iterable[str], where: str) -> tuple[str, ...]:
    """Return a list of different labels of a composition."""
    if not isinstance(value, list) or not all(isinstance(label, str) and label in known for label in value):
        raise LatencyTableError(f"{where}: labels must be labels of the candidates, got {shown(value)}")
    if len(set(value)) < len(value):
        raise LatencyTableError(f"{where}: a label is listed twice: {shown(value)}")
    return tuple(value)


def items_from(value: object, count: int, where: str) -> list[str]:
    """Return the items of a string that are separated by commas."""
    # A single number is no text in YAML.
    split = [item.strip() for item in str(value).split(",")] if isinstance(value, (str, int, float)) else []
    if len(split) != count:
        raise LatencyTableError(f"{where} must be a string of {count} items, got {shown(value)}")
    return split


def numbers_from(value: object, count: int, where: str) -> tuple[float, ...]:
    """Return the numbers of a string that are separated by commas."""
    found = []
    for item in items_from(value, count, where):
        try:
            read = float(item)
        except ValueError:
            raise LatencyTableError(f"{where} must be numbers, got {shown(item)}") from None
        found.append(number(read, where, 0, MOST_OPERATIONS))
    return tuple(found)


def mapping(value: object, where: str, keys: Any = None) -> Mapping[str, Any]:
    """Return a mapping, and check that it has no other keys than the given ones."""
    if not isinstance(value, Mapping):
        raise LatencyTableError(f"{where} must be a mapping, got {shown(value)}")
    for key in value:
        if keys is not None and key not in keys:
            raise LatencyTableError(f"{where}: {unknown_name('key', key, keys)}")
    return value


def text(value: object, where: str) -> str:
    """Return a text. Numbers are taken as texts, since YAML reads a version such as 2.1 as a number."""
    if value is not None and not isinstance(value, (str, int, float)):
        raise LatencyTableError(f"{where} must be a string, got {shown(value)}")
    return str(value)


def text_or_none(value: object, where: str) -> str | None:
    """Return a text, or `None` for `None`."""
    return None if value is None else text(value, where)


def name_or_none(value: object, where: str) -> str | None:
    """Return a name that may become a part of file names, or `None` for `None`."""
    return None if value is None else check_name(text(value, where), where, LatencyTableError)


def number(value: object, where: str, least: float = -MOST_OPERATIONS, most: float = MOST_LATENCY_MS) -> float:
    """Return a finite number within bounds."""
    if not is_number(value):
        raise LatencyTableError(f"{where} must be a finite number, got {shown(value)}")
    if value < least:
        raise LatencyTableError(f"{where} must be a number from {least:g}, got {value!r}")
    if value > most:
        raise LatencyTableError(f"{where} must be a number up to {most:,.0f}, got {value!r}")
    return float(value)


def whole(value: object, where: str, least: int, most: int = MOST_WHOLE) -> int:
    """Return a whole number within bounds."""
    if not is_whole(value, least):
        raise LatencyTableError(f"{where} must be a whole number from {least}, got {shown(value)}")
    if value > most:
        raise LatencyTableError(f"{where} must be a whole number from {least} to {most}, got {shown(value)}")
    return value


def whole_or_none(value: object, where: str, most: int) -> int | None:
    """Return a whole number from 1 to a bound, or `None` for `None`."""
    return None if value is None else whole(value, where, 1, most)


def number_format(value: object, where: str) -> str:
    """Return the name of a number format, or a note that it is not known."""
    name = text(value, where)
    if not _FORMAT.fullmatch(name):
        raise LatencyTableError(
            f"{where} must be a number format such as float32, float16 or int8, or 'not known', got {shown(value)}"
        )
    return name


def date(value: object, where: str) -> str:
    """Return a date, with or without a time, in ISO format, or a note that it is not known."""
    written = text(value, where)
    if written not in NOTES:
        try:
            datetime.datetime.fromisoformat(re.sub("Z$", "+00:00", written))
        except ValueError as reason:
            raise LatencyTableError(
                f"{where} must be a date such as 2026-01-31T12:00:00+00:00, or 'not known', got {shown(value)}"
            ) from reason
    return written
