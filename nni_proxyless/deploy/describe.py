"""Describes architectures for people: the blocks of a network, as data and as text, and differences between two."""

from __future__ import annotations

from dataclasses import dataclass

from ..files.writing import aligned
from ..latency import LatencyTable
from ..network.architecture import Architecture
from ..network.operators import Operator


@dataclass(frozen=True)
class Block:
    """One operator of a network, or a layer that it skips.

    Attributes:
        name: `stem`, `first`, the label of a searched layer, `head` or `classifier`.
        stage: Number of the searched stage, counted from 1; 0 for the blocks that every network has.
        operator: Operator of the block; `None` if the layer is skipped.
        latency_ms: Calibrated cost by a latency table, in the table's unit, usually milliseconds. `None` without a
            table, and for stage 0 if the table is fitted to layers.
    """

    name: str
    stage: int
    operator: Operator | None
    latency_ms: float | None = None

    @property
    def skipped(self) -> bool:
        return self.operator is None


def blocks(architecture: Architecture, table: LatencyTable | None = None) -> list[Block]:
    """List the blocks of a network from the stem to the classifier; skipped layers are listed as well.

    Args:
        architecture: Architecture of a space with a description (`Architecture.spec`).
        table: Latency table for the latency of each block.

    Raises:
        ArchitectureError: The architecture's space has no description.
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
    if table.fitted_to_layers:  # such a table has costs of candidates, but none of operators
        if block.stage == 0:
            return None
        costs = table.costs(architecture.require_spec())
        position = costs.candidates[block.name].index(architecture.choices[block.name])
        return costs.layers[block.name][position]
    return 0.0 if block.operator is None else table.calibration.scale * table.sum([block.operator])


def describe(architecture: Architecture, table: LatencyTable | None = None) -> list[str]:
    """Describe a network as lines of a text table; see `block_rows`."""
    rows, sums = block_rows(architecture, table)
    return [*aligned(rows), *sums]


def block_rows(architecture: Architecture, table: LatencyTable | None = None) -> tuple[list[list[str]], list[str]]:
    """Describe a network as a table with a row for each block, the heading first, and as lines with the sums.

    Args:
        architecture: Architecture of a space with a description (`Architecture.spec`).
        table: Latency table; adds each block's latency and its share of the network's latency.

    Raises:
        ArchitectureError: The architecture's space has no description.
        MissingOperatorError: The table lacks operators of the space.
    """
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
    lines = [f"{architecture.parameters:,} parameters, {architecture.multiply_adds:,} multiply-adds"]
    if total is not None and table is not None:
        lines[-1] += f", {total:.4g} {unit} on {table.device.name} ({table.backend})"
        offset = table.calibration.offset_ms
        if offset and unit == "ms":
            lines.append(
                f"{offset:+.4g} ms of that belong to no block: the table's calibration adds them to each network"
            )
    return rows, lines


def differences(first: Architecture, second: Architecture) -> list[str]:
    """Describe where two architectures differ: layer by layer, and in parameters and multiply-adds."""
    rows = [["layer", "this", "other"]]
    rows += [[label, mine or "no such layer", theirs or "no such layer"] for label, mine, theirs in first.diff(second)]
    lines = aligned(rows) if len(rows) > 1 else ["the two choose the same candidates"]
    for what in ("parameters", "multiply_adds"):
        mine, theirs = getattr(first, what), getattr(second, what)
        lines.append(f"{what.replace('_', '-')}: {mine:,} against {theirs:,} ({mine / theirs:.2f} times)")
    return lines
