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
from typing import Any, cast

from ..errors import LatencyTableError, MissingOperatorError, shown
from ..files.reading import read_mapping
from ..files.writing import write_yaml
from ..network.space_spec import SpaceSpec
from ..values import MOST_BATCH, MOST_THREADS
from . import table_parts as parts
from .composition import COUNTS, Composition
from .costs import SpaceCosts
from .device import Device
from .entries import Choice, Entry
from .quality import Quality
from .table_parts import COST_KEYS as COST_KEYS
from .table_parts import Calibration as Calibration
from .table_parts import OperatorCost as OperatorCost
from .table_parts import Unit as Unit
from .uncertainty import Uncertainty

LATENCY_TABLE_SCHEMA = "nni-proxyless/latency-table@1"
_BACKEND_KEYS = ("name", "version", "device", "command", "tool")
_KEYS = frozenset(
    {
        "schema", "space", "device", "backend", "dtype", "batch", "threads", "unit", "date", "source", "input_shape",
        "call_overhead_ms", "reference_ms", "calibration", "corrections", "quality", "operators", "uncertainty",
        "composition",
    }
)  # fmt: skip


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
        quality: Observations made while the table was measured; `None` if there are none. `judgement.verdict` judges
            them.
        tool: Device tool whose output the command printed, if the user named one.
        uncertainty: Uncertainty of a fitted table's predictions; `None` if unknown.
        composition: How the networks of the table's own space consist of its entries, if the space is an NNI model
            space from outside this package.

    Examples:
        A table that counts parameters instead of measuring latency:

        >>> from nni_proxyless.latency import make_backend, measure_table
        >>> from nni_proxyless.network.space_spec import SpaceSpec
        >>> spec = SpaceSpec.from_yaml("mobilenetv2_digits")
        >>> table = measure_table(spec, make_backend("params"))
        >>> costs = table.costs(spec)
        >>> int(costs.smallest), int(costs.largest)
        (32762, 236906)
        >>> int(costs.of({layer.label: layer.names[0] for layer in spec.layers}))
        91322
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
    composition: Composition | None = None

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
            LatencyTableError: Its offset makes the latency of the fastest network 0 or less, or it was fitted to
                networks with further layers.
        """
        scale, offset = self.calibration.scale, self.calibration.offset_ms
        if self.fitted_to_layers:
            named = {layer.label: [Choice(layer.label, name) for name in layer.names] for layer in spec.layers}
            surplus = {entry.layer for entry in self.operators if isinstance(entry, Choice)} - set(named)
            if surplus:
                raise LatencyTableError(
                    f"{self._named()} has costs of layers that space '{spec.name}' does not have: "
                    f"{', '.join(sorted(surplus)[:5])}; a column of the measurements that is no layer must be removed "
                    "before the fit"
                )
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
        ).above_zero(self._named(), fitted=self.fitted_to_layers)

    @property
    def fitted_to_layers(self) -> bool:
        """Whether the table has entries for candidates of named layers, as tables fitted to whole networks do."""
        return any(isinstance(entry, Choice) for entry in self.operators)

    @property
    def names_layers(self) -> bool:
        """Whether the table knows the layers of its space, so that `own_costs` needs no description of the space."""
        return self.fitted_to_layers or self.composition is not None

    def own_costs(self, source: str = "") -> SpaceCosts:
        """Apply a table to the layers that it names itself. Error messages call the table `source`.

        Raises:
            LatencyTableError: The table has entries for operators instead of layers, so use `costs` with a space; or
                its offset makes the mean latency of a fitted table, or the smallest latency of a measured one, 0 or
                less.
        """
        if self.composition is not None:
            if self.unit != "ms":
                return self.composition.counts(COUNTS[self.unit])
            measured = self.composition.costs(
                [cost.cost for cost in self.operators.values()],
                scale=self.calibration.scale,
                offset=self.calibration.offset_ms,
            )
            return measured.above_zero(source or self._named())
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
        ).above_zero(source or self._named(), fitted=True)

    def _named(self) -> str:
        return f"the latency table of {self.device.name} ({self.backend})"

    def to_dict(self) -> dict[str, Any]:
        key, ms = COST_KEYS[self.unit], self.unit == "ms"
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
            **self.calibration.to_dict(),
            **({"quality": self.quality.to_dict()} if self.quality is not None else {}),
            "operators": [
                {**entry.to_dict(), key: cost.cost, **({"spread_ms": cost.spread} if ms else {}), "runs": cost.runs}
                for entry, cost in self.operators.items()
            ],
            **({"uncertainty": self.uncertainty.to_dict()} if self.uncertainty is not None else {}),
            **({"composition": self.composition.to_dict()} if self.composition is not None else {}),
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
            got = shown(content.get("schema"))
            raise LatencyTableError(f"{source}: schema must be '{LATENCY_TABLE_SCHEMA}', got {got}")
        parts.mapping(content, source, _KEYS)
        unit = content.get("unit")
        if not isinstance(unit, str) or unit not in COST_KEYS:
            raise LatencyTableError(f"{source}: unit must be 'ms', 'flops' or 'params', got {shown(unit)}")
        operators = parts.operators_from(content.get("operators"), cast(Unit, unit), source)
        backend = parts.mapping(content.get("backend"), f"{source}: backend", _BACKEND_KEYS)
        reference, quality, doubt = content.get("reference_ms"), content.get("quality"), content.get("uncertainty")
        if reference is not None and parts.number(reference, f"{source}: reference_ms", 0) == 0:
            raise LatencyTableError(f"{source}: reference_ms must be greater than 0, got {reference}")
        choices = [entry for entry in operators if isinstance(entry, Choice)]
        composed = content.get("composition")
        table = cls(
            device=parts.device_from(content.get("device"), source),
            backend=parts.text(backend.get("name"), f"{source}: backend.name"),
            backend_version=parts.text(backend.get("version"), f"{source}: backend.version"),
            dtype=parts.number_format(content.get("dtype"), f"{source}: dtype"),
            batch=parts.whole_or_none(content.get("batch"), f"{source}: batch", MOST_BATCH),
            threads=parts.whole_or_none(content.get("threads"), f"{source}: threads", MOST_THREADS),
            date=parts.date(content.get("date"), f"{source}: date"),
            operators=operators,
            calibration=Calibration.from_dict(content, source),
            call_overhead_ms=parts.number(content.get("call_overhead_ms", 0.0), f"{source}: call_overhead_ms", 0),
            reference_ms=None if reference is None else float(reference),
            space=parts.name_or_none(content.get("space"), f"{source}: space"),
            unit=cast(Unit, unit),
            command=parts.text_or_none(backend.get("command"), f"{source}: backend.command"),
            tool=parts.text_or_none(backend.get("tool"), f"{source}: backend.tool"),
            device_type=parts.text_or_none(backend.get("device"), f"{source}: backend.device"),
            source=parts.text_or_none(content.get("source"), f"{source}: source"),
            input_shape=parts.shape_from(content.get("input_shape"), source),
            quality=None if quality is None else Quality.from_dict(quality, source),
            uncertainty=None if doubt is None else Uncertainty.from_dict(doubt, choices, f"{source}: uncertainty"),
            composition=None if composed is None else Composition.from_dict(composed, len(operators), source),
        )
        table._check_sum(source)
        return table

    def _check_sum(self, source: str) -> None:
        """Check that the offset leaves some network a latency above 0, as far as the entries alone show."""
        if self.names_layers:
            self.own_costs(source)
            return
        total = math.fsum(cost.cost for cost in self.operators.values())
        scale, offset = self.calibration.scale, self.calibration.offset_ms
        # A network has one operator of each layer, so it takes less than all operators of the table together.
        if offset <= -scale * total:
            raise LatencyTableError(
                f"{source}: calibration.offset_ms {offset:g} leaves no network a latency above 0: all operators "
                f"together take {scale * total:.4g} ms"
            )
