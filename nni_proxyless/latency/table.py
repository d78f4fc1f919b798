"""The latency table: its file format (schema `nni-proxyless/latency-table@1`), its checks, its use for a search space.

A table gives F(o), the latency of each operator, or its FLOPs or parameters in their own unit. `costs.py` sums these
costs over networks. A missing operator raises an error and never counts as 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from ..errors import InputError, LatencyTableError, MissingOperatorError
from ..files import read_mapping, write_yaml
from ..network.space_spec import SpaceSpec
from .costs import SpaceCosts
from .device import Device
from .entries import Choice, Entry, entry_from_dict
from .quality import Quality
from .uncertainty import Uncertainty

LATENCY_TABLE_SCHEMA = "nni-proxyless/latency-table@1"
_CORRECTIONS = ("ms_per_million_values", "ms_per_million_parameters")
Unit = Literal["ms", "flops", "params"]
# Key of an entry's cost in a file, by unit. The key names the unit.
COST_KEYS: dict[str, str] = {"ms": "latency_ms", "flops": "flops", "params": "params"}


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


@dataclass(frozen=True)
class LatencyTable:
    """Costs of operators on one device with one backend.

    Attributes:
        device: Measured device.
        backend: Name of the measuring backend; `fit` for a table fitted to whole networks, `published` for an imported
            table.
        backend_version: Version of the backend.
        dtype: Number format of the network.
        batch: Number of images in a batch; `None` if unknown.
        threads: Number of threads; `None` if unknown.
        date: Date and time of the measurement or the fit, in ISO format with time zone, or a note that it is unknown.
        operators: Cost of each entry.
        calibration: Prediction of a network's latency from the sum of the entries' costs.
        call_overhead_ms: Overhead of calling the backend, in milliseconds. It is already subtracted from every entry.
        reference_ms: Latency of the reference network (`measure.py`) when the table was measured, in milliseconds. A
            later measurement of the same network shows how the machine has changed since.
        space: Name of the space for which the table was measured. Other spaces with the same operators can use it.
        unit: Unit of the costs: `ms`, `flops` (multiply-adds, by the convention of the field) or `params`.
        command: Shell command of the user that measured the table, if the backend is `command`.
        device_type: `cuda` if the torch backend ran on a GPU, otherwise `None`.
        input_shape: Shape of one input without the batch dimension, if the space is an NNI model space from outside
            this package.
        source: Origin of the table, if it was not measured here.
        quality: What was seen while the table was measured; `None` if nothing is known. `judgement.verdict` judges it.
        tool: Device tool whose output the command printed, if the user named one.
        uncertainty: Uncertainty of a fitted table's predictions; `None` if it is not known.
    """

    device: Device
    backend: str
    backend_version: str
    dtype: str
    batch: int | None
    threads: int | None
    date: str
    operators: Mapping[Entry, OperatorCost]
    calibration: Calibration = field(default_factory=Calibration)
    call_overhead_ms: float = 0.0
    reference_ms: float | None = None
    space: str | None = None
    unit: Unit = "ms"
    command: str | None = None
    device_type: str | None = None
    input_shape: tuple[int, ...] | None = None
    source: str | None = None
    quality: Quality | None = None
    tool: str | None = None
    uncertainty: Uncertainty | None = None

    def sum(self, operators: Iterable[Entry]) -> float:
        """Sum the costs of entries in the table's unit, without calibration.

        Raises:
            MissingOperatorError: The table lacks some of the entries. The message lists all of them.
        """
        wanted = list(operators)
        missing = [op for op in dict.fromkeys(wanted) if op not in self.operators]
        if missing:
            listed = "; ".join(str(op) for op in missing)
            raise MissingOperatorError(
                f"latency table of {self.device.name} ({self.backend}) lacks {len(missing)} operator(s): {listed}. "
                "Measure the table again for this space"
            )
        return math.fsum(self.operators[op].cost for op in wanted)

    def costs(self, spec: SpaceSpec) -> SpaceCosts:
        """Apply the table to a space.

        Raises:
            MissingOperatorError: The table lacks operators or candidates of the space. The message lists all of them.
        """
        scale, offset = self.calibration.scale, self.calibration.offset_ms
        if self.fitted_to_layers:
            named = {layer.label: [Choice(layer.label, name) for name in layer.names] for layer in spec.layers}
            self.sum(choice for choices in named.values() for choice in choices)
            fixed, layers = 0.0, {k: [self.operators[c].cost for c in choices] for k, choices in named.items()}
        else:
            self.sum(spec.distinct_operators())
            fixed = self.sum(spec.fixed_operators)
            layers = {
                layer.label: [0.0 if op is None else self.operators[op].cost for op in layer.candidates.values()]
                for layer in spec.layers
            }
        return SpaceCosts(
            fixed=scale * fixed + offset,
            candidates={layer.label: layer.names for layer in spec.layers},
            layers={label: tuple(scale * cost for cost in costs) for label, costs in layers.items()},
            unit=self.unit,
        )

    @property
    def fitted_to_layers(self) -> bool:
        """Whether the table has entries for candidates of named layers, as tables fitted to whole networks do."""
        return any(isinstance(entry, Choice) for entry in self.operators)

    def own_costs(self) -> SpaceCosts:
        """Apply a fitted table to the layers that its own entries name.

        Raises:
            LatencyTableError: The table has entries for operators instead of layers. Use `costs` with a space.
        """
        if not self.fitted_to_layers:
            raise LatencyTableError(
                f"the table of {self.device.name} ({self.backend}) has entries for operators, not for layers: give "
                "its --space"
            )
        layers: dict[str, dict[str, float]] = {}
        for entry, cost in self.operators.items():
            if isinstance(entry, Choice):
                layers.setdefault(entry.layer, {})[entry.candidate] = self.calibration.scale * cost.cost
        return SpaceCosts(
            fixed=self.calibration.offset_ms,
            candidates={label: tuple(costs) for label, costs in layers.items()},
            layers={label: tuple(costs.values()) for label, costs in layers.items()},
            unit=self.unit,
        )

    def to_dict(self) -> dict[str, Any]:
        key, ms = COST_KEYS[self.unit], self.unit == "ms"
        corrections = {name: getattr(self.calibration, name) for name in _CORRECTIONS}
        return {
            "schema": LATENCY_TABLE_SCHEMA,
            "space": self.space,
            "device": asdict(self.device),
            "backend": {
                "name": self.backend,
                "version": self.backend_version,
                **({"device": self.device_type} if self.device_type is not None else {}),
                **({"command": self.command} if self.command is not None else {}),
                **({"tool": self.tool} if self.tool is not None else {}),
            },
            "dtype": self.dtype,
            "batch": self.batch,
            "threads": self.threads,
            "unit": self.unit,
            "date": self.date,
            **({"source": self.source} if self.source is not None else {}),
            **({"input_shape": list(self.input_shape)} if self.input_shape is not None else {}),
            "call_overhead_ms": self.call_overhead_ms,
            **({"reference_ms": self.reference_ms} if self.reference_ms is not None else {}),
            "calibration": {
                **{k: v for k, v in asdict(self.calibration).items() if k not in _CORRECTIONS},
                "architectures": list(self.calibration.architectures),
            },
            **({"corrections": corrections} if any(corrections.values()) else {}),
            **({"quality": self.quality.to_dict()} if self.quality is not None else {}),
            "operators": [
                {**entry.to_dict(), key: cost.cost, **({"spread_ms": cost.spread} if ms else {}), "runs": cost.runs}
                for entry, cost in self.operators.items()
            ],
            **({"uncertainty": self.uncertainty.to_dict()} if self.uncertainty is not None else {}),
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        return write_yaml(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Load a table from a file and check it.

        Raises:
            LatencyTableError: The file cannot be read, has another schema, or contains invalid values.
        """
        return cls.from_dict(read_mapping(path, "latency table", LatencyTableError), f"latency table {path}")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "latency table") -> LatencyTable:
        """Create a table from the content of a file; see `load`. Error messages call the file `source`."""
        if content.get("schema") != LATENCY_TABLE_SCHEMA:
            raise LatencyTableError(f"{source}: schema must be '{LATENCY_TABLE_SCHEMA}', got {content.get('schema')!r}")
        unit = content.get("unit")
        if not isinstance(unit, str) or unit not in COST_KEYS:
            raise LatencyTableError(f"{source}: unit must be 'ms', 'flops' or 'params', got {unit!r}")
        key = COST_KEYS[unit]
        rows = content.get("operators")
        if not isinstance(rows, list) or not rows:
            raise LatencyTableError(f"{source}: 'operators' must be a non-empty list, got {rows!r}")
        operators: dict[Entry, OperatorCost] = {}
        for number, row in enumerate(rows, start=1):
            where = f"{source}: operator {number}"
            if not isinstance(row, Mapping):
                raise LatencyTableError(f"{where} must be a mapping, got {row!r}")
            try:
                entry = entry_from_dict(row)
            except InputError as reason:
                raise LatencyTableError(f"{where}: {reason}") from reason
            if entry in operators:
                raise LatencyTableError(f"{where} is a duplicate: {entry}")
            cost = _finite(row.get(key), f"{where} ({entry}): {key}")
            # A candidate's cost is relative to the cheapest one of its layer and may be 0. An operator's cost may not.
            if cost < 0 or (cost == 0 and not isinstance(entry, Choice)):
                raise LatencyTableError(f"{where} ({entry}): {key} must be greater than 0, got {cost}")
            spread = _finite(row.get("spread_ms", 0.0), f"{where}: spread_ms")
            operators[entry] = OperatorCost(cost, spread, _whole(row.get("runs", 1), f"{where}: runs", 1))
        device = _mapping(content.get("device"), f"{source}: device")
        backend = _mapping(content.get("backend"), f"{source}: backend")
        calibration = _mapping(content.get("calibration", {}), f"{source}: calibration")
        corrections = _mapping(content.get("corrections", {}), f"{source}: corrections")
        error = calibration.get("mean_relative_error")
        scale = _finite(calibration.get("scale", 1.0), f"{source}: calibration.scale")
        if scale <= 0:
            raise LatencyTableError(f"{source}: calibration.scale must be greater than 0, got {scale}")
        architectures = calibration.get("architectures", [])
        if not isinstance(architectures, list) or not all(isinstance(text, str) for text in architectures):
            raise LatencyTableError(f"{source}: calibration.architectures must be a list of strings")
        reference = content.get("reference_ms")
        space, command, origin = content.get("space"), backend.get("command"), content.get("source")
        return cls(
            device=Device(
                str(device.get("name")),
                str(device.get("processor")),
                _whole_or_none(device.get("cores"), f"{source}: device.cores"),
            ),
            backend=str(backend.get("name")),
            backend_version=str(backend.get("version")),
            dtype=str(content.get("dtype")),
            batch=_whole_or_none(content.get("batch"), f"{source}: batch"),
            threads=_whole_or_none(content.get("threads"), f"{source}: threads"),
            date=str(content.get("date")),
            operators=operators,
            calibration=Calibration(
                scale,
                _finite(calibration.get("offset_ms", 0.0), f"{source}: calibration.offset_ms"),
                _whole(calibration.get("networks", 0), f"{source}: calibration.networks", 0),
                None if error is None else _finite(error, f"{source}: calibration.mean_relative_error"),
                tuple(architectures),
                *(_finite(corrections.get(name, 0.0), f"{source}: corrections.{name}") for name in _CORRECTIONS),
            ),
            call_overhead_ms=_finite(content.get("call_overhead_ms", 0.0), f"{source}: call_overhead_ms"),
            reference_ms=None if reference is None else _finite(reference, f"{source}: reference_ms"),
            space=None if space is None else str(space),
            unit=cast(Unit, unit),
            command=None if command is None else str(command),
            tool=None if backend.get("tool") is None else str(backend["tool"]),
            device_type=None if backend.get("device") is None else str(backend["device"]),
            source=None if origin is None else str(origin),
            input_shape=_shape(content.get("input_shape"), source),
            quality=None if content.get("quality") is None else Quality.from_dict(content["quality"], source),
            uncertainty=None
            if (doubt := content.get("uncertainty")) is None
            else Uncertainty.from_dict(
                doubt, [e for e in operators if isinstance(e, Choice)], f"{source}: uncertainty"
            ),
        )


def _mapping(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise LatencyTableError(f"{where} must be a mapping, got {value!r}")
    return value


def _finite(value: object, where: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise LatencyTableError(f"{where} must be a finite number, got {value!r}")
    return float(value)


def _whole(value: object, where: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise LatencyTableError(f"{where} must be a whole number from {least}, got {value!r}")
    return value


def _whole_or_none(value: object, where: str) -> int | None:
    return None if value is None else _whole(value, where, 1)


def _shape(value: object, source: str) -> tuple[int, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise LatencyTableError(f"{source}: input_shape must be a list of whole numbers, got {value!r}")
    return tuple(_whole(size, f"{source}: input_shape", 1) for size in value)
