"""The command `decode`: architectures for any devices and budgets, from the checkpoint of one search."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from ..decoding.budgets import amount
from ..errors import InputError
from .decode_tables import HINT, named_tables
from .front import decode_front
from .terminal import write_lines

if TYPE_CHECKING:
    from ..decoding.budgets import Limit
    from ..decoding.checkpoint import SearchCheckpoint
    from ..latency.table import LatencyTable
    from ..network.architecture import Architecture


def decode(options: argparse.Namespace) -> int:
    """Decode one architecture for each table, or with `--budget` one that is within all budgets."""
    from ..decoding.budgets import check_names, parse_expressions
    from ..decoding.checkpoint import SearchCheckpoint, checkpoint_file, write_fronts

    limits = parse_expressions(options.budget)
    if options.quantities:
        return decode_front(options, limits)
    if options.points is not None:
        raise InputError("--points needs --front with two or three quantities")
    if limits and options.budget_ms is not None:
        raise InputError("give --budget-ms, which applies to each table separately, or --budget, not both")
    if options.front and not options.table:
        raise InputError("--front needs --table: without latencies there is no front")
    if options.finalists is not None and not limits and (not options.table or options.budget_ms is None):
        raise InputError(
            "--finalists needs --table and --budget-ms, or --budget: only networks within a budget are compared"
        )
    if options.budget_ms is not None and not options.table:
        raise InputError("--budget-ms needs --table: a budget needs a latency table")
    given = named_tables(options.table, options.checkpoint, [limit.name for limit in limits])
    limits = tuple(replace(limit, name=given.name(limit.name)) for limit in limits)
    check_names(limits, list(given.files), HINT)
    checkpoint_file(options.checkpoint)
    tables = given.load()
    found = SearchCheckpoint.load(options.checkpoint)
    if limits:
        decoded = _within(found, tables, limits, options)
    elif options.finalists is None:
        named: dict[str, LatencyTable | None] = {**tables} if tables else {"architecture": None}
        decoded = {name: found.decode(table, options.budget_ms, target=name) for name, table in named.items()}
    else:
        from ..search.shared_weights import decode_finalists

        decoded = decode_finalists(options.checkpoint, tables, options.budget_ms, options.finalists)
    lines = [_line(name, architecture) for name, architecture in decoded.items()]
    if options.front:
        fronts = {
            name: found.for_table(table, limits, tables).front(options.budget_ms) for name, table in tables.items()
        }
        lines += [f"{name}: {len(points)} points on the front" for name, points in fronts.items()]
        lines.append(f"front: {write_fronts(options.front, fronts).resolve()}")
    if options.out:
        for name, architecture in decoded.items():
            architecture.save(options.out / f"{name}.json")
        lines.append(f"architectures: {options.out.resolve()}")
    write_lines(*lines)
    return 0


def _within(
    found: SearchCheckpoint, tables: dict[str, LatencyTable], limits: tuple[Limit, ...], options: argparse.Namespace
) -> dict[str, Architecture]:
    """Decode the one architecture that is within all budgets. It is named after the first table."""
    name = next(iter(tables), "architecture")
    if options.finalists is None:
        return {name: found.decode_within(tables, limits, target=name if tables else None)}
    from ..search.shared_weights import decode_finalists_within

    return {name: decode_finalists_within(options.checkpoint, tables, limits, options.finalists)}


def _line(name: str, architecture: Architecture) -> str:
    latency = architecture.predicted_latency_ms
    shown = "" if latency is None else f"{latency:.4g} ms  "
    if "default" in architecture.metrics:
        shown += f"accuracy {architecture.metrics['default']:.4f}  "
    if "balanced_accuracy" in architecture.metrics:
        shown += f"balanced {architecture.metrics['balanced_accuracy']:.4f}  "
    kept = (
        f"{quantity} {amount(quantity, values['value'])} of {amount(quantity, values['limit'])}"
        for quantity, values in architecture.budgets.items()
    )
    return f"{name}  {shown}{''.join(f'{text}  ' for text in kept)}{architecture.candidate_names}"
