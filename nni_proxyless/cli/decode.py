"""`nni-proxyless decode`: parses arguments, calls other modules, prints; holds no logic."""

from __future__ import annotations

import argparse

from ..errors import InputError
from .terminal import write_lines


def decode(options: argparse.Namespace) -> int:
    """Decode the checkpoint of a search for one or more tables, and print the architectures."""
    from ..decoding.checkpoint import SearchCheckpoint, write_fronts
    from ..latency.judgement import load_judged
    from ..latency.table import LatencyTable

    if options.front and not options.table:
        raise InputError("--front needs --table: without latencies there is no front")
    if options.finalists is not None and (not options.table or options.budget_ms is None):
        raise InputError("--finalists needs --table and --budget-ms: accuracies know nothing of latency")
    found = SearchCheckpoint.load(options.checkpoint)
    tables: dict[str, LatencyTable] = {}
    for path in options.table:
        if path.stem in tables:
            raise InputError(f"two tables are called {path.stem}; the results are named after them, so rename one")
        tables[path.stem] = load_judged(path)
    named: dict[str, LatencyTable | None] = {**tables} if tables else {"architecture": None}
    if options.finalists is None:
        decoded = {name: found.decode(table, options.budget_ms, target=name) for name, table in named.items()}
    else:
        from ..search.shared_weights import decode_finalists

        decoded = decode_finalists(options.checkpoint, tables, options.budget_ms, options.finalists)
    lines = []
    for name, architecture in decoded.items():
        latency = architecture.predicted_latency_ms
        shown = "" if latency is None else f"{latency:.4g} ms  "
        if "default" in architecture.metrics:
            shown += f"accuracy {architecture.metrics['default']:.4f}  "
        lines.append(f"{name}  {shown}{architecture.candidate_names}")
    if options.front:
        fronts = {name: found.for_table(table).front(options.budget_ms) for name, table in tables.items()}
        lines += [f"{name}: {len(points)} points on the front" for name, points in fronts.items()]
        lines.append(f"front: {write_fronts(options.front, fronts).resolve()}")
    if options.out:
        for name, architecture in decoded.items():
            architecture.save(options.out / f"{name}.json")
        lines.append(f"architectures: {options.out.resolve()}")
    write_lines(*lines)
    return 0
