"""The latency table: schema `nni-proxyless/latency-table@1`, load, save, validate, predict.

A table gives F(o), the latency of each operator, so that E[lat] = fixed + Σ_layers Σ_i p_i F(o_i) is linear in
the path probabilities and ∂E/∂p_i = F(o_i) (paper section 3.3.1, eq. 5 and 6). A missing operator is an
error, never a zero.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..errors import InputError, LatencyTableError, MissingOperatorError
from ..files import read_mapping, write_yaml
from ..operators import Operator
from ..space_spec import SpaceSpec
from .device import Device

LATENCY_TABLE_SCHEMA = "nni-proxyless/latency-table@1"
_T = TypeVar("_T")


@dataclass(frozen=True)
class OperatorLatency:
    """One entry.

    Attributes:
        latency_ms: Median in milliseconds, the cost of calling the backend taken off.
        spread_ms: Standard error of that median, in milliseconds.
        runs: Number of timed samples.
    """

    latency_ms: float
    spread_ms: float
    runs: int


@dataclass(frozen=True)
class Calibration:
    """How the sum of operators becomes the latency of a network: scale · Σ + offset.

    Attributes:
        scale: Factor on the sum of operators.
        offset_ms: Milliseconds added once for each network.
        networks: Number of whole networks it was fitted to; 0 where the table is not calibrated.
        mean_relative_error: Mean of |predicted - measured| / measured over those networks.
    """

    scale: float = 1.0
    offset_ms: float = 0.0
    networks: int = 0
    mean_relative_error: float | None = None


@dataclass(frozen=True)
class LatencyCosts:
    """A table applied to a space: what each candidate of each layer adds.

    Attributes:
        fixed_ms: Operators that every network has, calibration offset included.
        candidates: Label to candidate names.
        layers_ms: Label to the cost of each candidate in milliseconds, in the same order; a skip costs 0.
    """

    fixed_ms: float
    candidates: Mapping[str, tuple[str, ...]]
    layers_ms: Mapping[str, tuple[float, ...]]

    def _total(self, layer_cost: Callable[[str, tuple[float, ...]], _T]) -> _T | float:
        """The one traversal: `layer_cost` weighs a layer's costs by a choice or by a distribution."""
        total: Any = self.fixed_ms
        for label, costs in self.layers_ms.items():
            total = total + layer_cost(label, costs)
        return total  # type: ignore[no-any-return]

    def latency_ms(self, choices: Mapping[str, str]) -> float:
        """Latency of one architecture in milliseconds.

        Args:
            choices: Label to candidate name.

        Raises:
            InputError: A label is missing or a candidate does not exist.
        """

        def chosen(label: str, costs: tuple[float, ...]) -> float:
            names = self.candidates[label]
            if choices.get(label) not in names:
                raise InputError(f"layer {label}: {choices.get(label)!r} is not one of {', '.join(names)}")
            return costs[names.index(choices[label])]

        return float(self._total(chosen))

    def expected_latency_ms(self, probs: Mapping[str, Tensor]) -> Tensor:
        """E[lat] = fixed + Σ_layers Σ_i p_i F(o_i) in milliseconds, differentiable (paper eq. 5 and 6).

        Args:
            probs: Label to path probabilities, shape (num_candidates,).
        """

        def expected(label: str, costs: tuple[float, ...]) -> Tensor:
            p = probs[label]
            return torch.dot(p, torch.tensor(costs, dtype=p.dtype, device=p.device))

        return torch.as_tensor(self._total(expected))

    @property
    def smallest_ms(self) -> float:
        """Latency of the fastest network, in milliseconds."""
        return float(self._total(lambda _, costs: min(costs)))

    @property
    def largest_ms(self) -> float:
        """Latency of the slowest network, in milliseconds."""
        return float(self._total(lambda _, costs: max(costs)))


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of operators on one device with one backend.

    Attributes:
        device: What was measured on.
        backend: Name of the measuring backend.
        backend_version: Its version.
        dtype: Number format of the network.
        batch: Images in a batch.
        threads: Threads used.
        date: When, in ISO format with time zone.
        operators: The entries.
        calibration: From sums to networks.
        call_overhead_ms: What calling the backend costs; taken off each entry.
        space: Name of the space it was measured for; other spaces with the same operators may use it.
    """

    device: Device
    backend: str
    backend_version: str
    dtype: str
    batch: int
    threads: int
    date: str
    operators: Mapping[Operator, OperatorLatency]
    calibration: Calibration = field(default_factory=Calibration)
    call_overhead_ms: float = 0.0
    space: str | None = None

    def sum_ms(self, operators: Iterable[Operator]) -> float:
        """Plain sum of entries in milliseconds, not calibrated.

        Raises:
            MissingOperatorError: The table lacks some of them; all are listed.
        """
        wanted = list(operators)
        missing = [op for op in dict.fromkeys(wanted) if op not in self.operators]
        if missing:
            listed = "; ".join(str(op) for op in missing)
            raise MissingOperatorError(
                f"latency table of {self.device.name} ({self.backend}) lacks {len(missing)} operator(s): {listed}. "
                "Measure the table again for this space"
            )
        return math.fsum(self.operators[op].latency_ms for op in wanted)

    def costs(self, spec: SpaceSpec) -> LatencyCosts:
        """The table applied to a space.

        Raises:
            MissingOperatorError: The table lacks operators of the space; all are listed.
        """
        self.sum_ms(spec.distinct_operators())
        scale = self.calibration.scale
        return LatencyCosts(
            fixed_ms=scale * self.sum_ms(spec.fixed_operators) + self.calibration.offset_ms,
            candidates={layer.label: layer.names for layer in spec.layers},
            layers_ms={
                layer.label: tuple(
                    0.0 if op is None else scale * self.operators[op].latency_ms for op in layer.candidates.values()
                )
                for layer in spec.layers
            },
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": LATENCY_TABLE_SCHEMA,
            "space": self.space,
            "device": asdict(self.device),
            "backend": {"name": self.backend, "version": self.backend_version},
            "dtype": self.dtype,
            "batch": self.batch,
            "threads": self.threads,
            "unit": "ms",
            "date": self.date,
            "call_overhead_ms": self.call_overhead_ms,
            "calibration": asdict(self.calibration),
            "operators": [{**operator.to_dict(), **asdict(entry)} for operator, entry in self.operators.items()],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        return write_yaml(path, self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatencyTable:
        """Load and check a file.

        Raises:
            LatencyTableError: The file cannot be read, is of another schema, or holds impossible latencies.
        """
        return cls.from_dict(read_mapping(path, "latency table", LatencyTableError), f"latency table {path}")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "latency table") -> LatencyTable:
        """Check the content of a file; see `load`."""
        if content.get("schema") != LATENCY_TABLE_SCHEMA:
            raise LatencyTableError(f"{source}: schema must be '{LATENCY_TABLE_SCHEMA}', got {content.get('schema')!r}")
        if content.get("unit") != "ms":
            raise LatencyTableError(f"{source}: unit must be 'ms', got {content.get('unit')!r}")
        rows = content.get("operators")
        if not isinstance(rows, list) or not rows:
            raise LatencyTableError(f"{source}: 'operators' must be a non-empty list, got {rows!r}")
        operators: dict[Operator, OperatorLatency] = {}
        for number, row in enumerate(rows, start=1):
            where = f"{source}: operator {number}"
            if not isinstance(row, Mapping):
                raise LatencyTableError(f"{where} must be a mapping, got {row!r}")
            try:
                operator = Operator.from_dict(row)
            except InputError as reason:
                raise LatencyTableError(f"{where}: {reason}") from reason
            if operator in operators:
                raise LatencyTableError(f"{where} stands twice: {operator}")
            latency_ms = _finite(row.get("latency_ms"), f"{where} ({operator}): latency_ms")
            if latency_ms <= 0:
                raise LatencyTableError(f"{where} ({operator}): latency_ms must be greater than 0, got {latency_ms}")
            operators[operator] = OperatorLatency(
                latency_ms,
                _finite(row.get("spread_ms", 0.0), f"{where}: spread_ms"),
                _whole(row.get("runs", 1), f"{where}: runs", 1),
            )
        device = _mapping(content.get("device"), f"{source}: device")
        backend = _mapping(content.get("backend"), f"{source}: backend")
        calibration = _mapping(content.get("calibration", {}), f"{source}: calibration")
        error = calibration.get("mean_relative_error")
        scale = _finite(calibration.get("scale", 1.0), f"{source}: calibration.scale")
        if scale <= 0:
            raise LatencyTableError(f"{source}: calibration.scale must be greater than 0, got {scale}")
        space = content.get("space")
        return cls(
            device=Device(
                str(device.get("name")),
                str(device.get("processor")),
                _whole(device.get("cores"), f"{source}: device.cores", 1),
            ),
            backend=str(backend.get("name")),
            backend_version=str(backend.get("version")),
            dtype=str(content.get("dtype")),
            batch=_whole(content.get("batch"), f"{source}: batch", 1),
            threads=_whole(content.get("threads"), f"{source}: threads", 1),
            date=str(content.get("date")),
            operators=operators,
            calibration=Calibration(
                scale,
                _finite(calibration.get("offset_ms", 0.0), f"{source}: calibration.offset_ms"),
                _whole(calibration.get("networks", 0), f"{source}: calibration.networks", 0),
                None if error is None else _finite(error, f"{source}: calibration.mean_relative_error"),
            ),
            call_overhead_ms=_finite(content.get("call_overhead_ms", 0.0), f"{source}: call_overhead_ms"),
            space=None if space is None else str(space),
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
