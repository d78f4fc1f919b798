"""An architecture as data for people: its blocks one by one, as a table of text, and what differs from another one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..latency import LatencyTable
from ..network.architecture import Architecture
from ..network.operators import Operator


@dataclass(frozen=True)
class Block:
    """One operator of a network, or a layer that it skips.

    Attributes:
        name: `stem`, `first`, the label of a searched layer, `head` or `classifier`.
        stage: Number of the searched stage from 1; 0 for what every network has.
        operator: What runs; none where the layer is skipped.
        latency_ms: By a table, in milliseconds, calibrated; none without one.
    """

    name: str
    stage: int
    operator: Operator | None
    latency_ms: float | None = None

    @property
    def skipped(self) -> bool:
        return self.operator is None


def blocks(architecture: Architecture, table: LatencyTable | None = None) -> list[Block]:
    """The network from its image to its classes; a layer's place stays where it is skipped.

    Args:
        architecture: Of a space that describes itself.
        table: Gives each block's latency.

    Raises:
        ArchitectureError: The space does not describe itself.
        MissingOperatorError: The table lacks operators of the space.
    """
    spec = architecture.require_spec()
    found = [Block("stem", 0, spec.stem), Block("first", 0, spec.first_block)]
    stages = [number for number, stage in enumerate(spec.stages, start=1) for _ in range(stage.depth)]
    chosen = spec.choice_operators(architecture.choices)
    found += [Block(layer.label, n, op) for layer, n, op in zip(spec.layers, stages, chosen, strict=True)]
    found += [Block("head", 0, spec.head), Block("classifier", 0, spec.classifier)]
    if table is None:
        return found
    return [Block(b.name, b.stage, b.operator, _latency(table, b, architecture)) for b in found]


def _latency(table: LatencyTable, block: Block, architecture: Architecture) -> float | None:
    if table.fitted_to_layers:  # it knows what candidates add, not what operators take
        if block.stage == 0:
            return None
        costs = table.costs(architecture.require_spec())
        position = costs.candidates[block.name].index(architecture.choices[block.name])
        return costs.layers[block.name][position]
    return 0.0 if block.operator is None else table.calibration.scale * table.sum([block.operator])


def describe(architecture: Architecture, table: LatencyTable | None = None) -> list[str]:
    """The network as a table of text: block, output, kernel, expansion, parameters, multiply-adds, latency."""
    listed = blocks(architecture, table)
    total = None if table is None else table.costs(architecture.require_spec()).of(architecture.choices)
    unit = None if table is None else table.unit
    header = ["block", "output", "kernel", "expansion", "stride", "parameters", "multiply-adds"]
    rows = [header + ([] if unit is None else [unit, "share"])]
    for block in listed:
        op = block.operator
        if op is None:
            row = [block.name, "skipped", "", "", "", "0", "0"]
        else:
            shape = "x".join(map(str, op.output_shape))
            details = ["", "", ""]
            if op.kind != "classifier":
                details = [str(op.kernel), str(op.expansion) if op.kind == "mbconv" else "", str(op.stride)]
            row = [block.name, shape, *details, f"{op.parameters:,}", f"{op.multiply_adds:,}"]
        if total is not None:
            known = block.latency_ms
            row += ["", ""] if known is None else [f"{known:.4g}", f"{100 * known / total:.1f} %"]
        rows.append(row)
    lines = _aligned(rows)
    lines.append(f"{architecture.parameters:,} parameters, {architecture.multiply_adds:,} multiply-adds")
    if total is not None and table is not None:
        lines[-1] += f", {total:.4g} {unit} on {table.device.name} ({table.backend})"
        offset = table.calibration.offset_ms
        if offset and unit == "ms":
            lines.append(
                f"{offset:+.4g} ms of that belong to no block: the table's calibration adds them to each network"
            )
    return lines


def differences(first: Architecture, second: Architecture) -> list[str]:
    """Where two architectures differ, layer by layer, and in size."""
    rows = [["layer", "this", "other"]]
    rows += [[label, mine or "no such layer", theirs or "no such layer"] for label, mine, theirs in first.diff(second)]
    lines = _aligned(rows) if len(rows) > 1 else ["the two choose the same candidates"]
    for what in ("parameters", "multiply_adds"):
        mine, theirs = getattr(first, what), getattr(second, what)
        lines.append(f"{what.replace('_', '-')}: {mine:,} against {theirs:,} ({mine / theirs:.2f} times)")
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
