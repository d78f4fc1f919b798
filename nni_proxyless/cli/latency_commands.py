"""The commands `nni-proxyless latency …`: they parse arguments, call the library and print results."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, LatencyTableError, RunError, shown
from .terminal import write_lines, write_table

_log = logging.getLogger("nni_proxyless")
AddCommand = Callable[..., argparse.ArgumentParser]


def _make_backend(options: argparse.Namespace) -> Any:
    from ..latency import make_backend

    given = {
        key.removeprefix("backend_"): value
        for key, value in vars(options).items()
        if key.startswith("backend_") and value is not None
    }
    if options.backend is None:
        if given:
            raise InputError(f"--{next(iter(given)).replace('_', '-')} needs --backend")
        return None
    return make_backend(options.backend, **given)


def run_measure(options: argparse.Namespace) -> int:
    from ..network.space_spec import SpaceSpec

    spec = SpaceSpec.from_yaml(options.space)
    backend = _make_backend(options)

    from ..files.claims import claimed_file

    with claimed_file(options.out):
        return _measure(options, spec, backend)


def _measure(options: argparse.Namespace, spec: Any, backend: Any) -> int:
    from ..latency import measure_table_isolated
    from ..latency.isolated import MOST_TABLE_PROCESSES, TABLE_PROCESSES, journals
    from ..latency.journal import export_samples
    from ..latency.judgement import Verdict, advice, verdict, warnings_of
    from ..latency.quality import Quality
    from ..progress import progress_bar, work_begins

    work_begins()
    processes = options.processes or TABLE_PROCESSES
    most = processes if options.accept or options.processes else MOST_TABLE_PROCESSES
    journal = options.out.parent / f".{options.out.name}.samples"
    with progress_bar(f"measuring {spec.name} with {backend.name}") as step:
        table = measure_table_isolated(
            spec, backend, processes=processes, most_processes=most, progress=step,
            calibration_networks=options.networks, journal_path=journal.resolve(),
        )  # fmt: skip
    if options.samples:
        export_samples(journals(journal.resolve()), options.samples)
    if verdict(table) is Verdict.BAD and not options.accept:
        refused = table.save(options.out.with_name(f"{options.out.stem}.refused{options.out.suffix}"))
        _remove(journals(journal.resolve()))
        raise RunError(
            f"{warnings_of(table)[0]}. It is not written to {options.out}, but to {refused.resolve()}. What to try: "
            f"{advice(table)}. To use the table anyway, give --accept"
        )
    if options.accept:
        table = replace(table, quality=replace(table.quality or Quality(), accepted=True))
    table.save(options.out)
    _remove(journals(journal.resolve()))  # not earlier: the disk may be full
    costs = table.costs(spec)
    write_lines(
        f"{len(table.operators)} operators with {backend.name} {backend.version}, {table.dtype}, "
        f"{backend.threads} thread(s), batch {backend.batch}, on {table.device.name}: {table.device.processor}",
        f"networks take {costs.smallest:.4g} to {costs.largest:.4g} {table.unit}{table.calibration.error_text}",
        *(f"warning: {text}" for text in warnings_of(table)),
        f"table: {options.out.resolve()}",
    )
    return 0


def run_list(options: argparse.Namespace) -> int:
    from ..latency.judgement import warnings_of
    from ..progress import progress_bar
    from ..search.kept_tables import kept_tables, listing_rows, remeasure

    found = kept_tables()
    if options.remeasure:
        for one in found:
            if (reason := one.not_measurable) is None:
                with progress_bar(f"measuring {one.path.name}") as step:
                    said = remeasure(one, progress=step)
                write_lines(f"{one.path.name}: {said}")
            else:
                write_lines(f"{one.path.name}: not measured, because {reason}")
        found = kept_tables()
    rows, place = listing_rows(found)
    if rows:
        write_table(rows)
    write_lines(place)
    for one in found:
        if one.table is not None:
            write_lines(*(f"warning: {one.path.name}: {text}" for text in warnings_of(one.table)))
    return 0


def run_validate(options: argparse.Namespace) -> int:
    from ..latency import LatencyTable, this_device
    from ..latency.predict import space_of
    from ..latency.validate import plot, table_backend, validate
    from ..progress import progress_bar

    table = LatencyTable.load(options.table)
    spec = space_of(table, options.space)
    if spec is None:
        raise LatencyTableError(
            f"the table was measured for space {shown(table.space)}, which is not shipped: give --space"
        )
    if options.backend == "command" and options.backend_command == table.command and options.backend_device is None:
        options.backend_device = table.device.name
    backend = _make_backend(options) or table_backend(table)
    elsewhere = backend.device != table.device
    with progress_bar(f"measuring {options.networks} networks of {spec.name} with {backend.name}") as step:
        found = validate(table, spec, options.networks, backend=backend, seed=options.seed, progress=step)
    folder = options.out or options.table.parent / f"validation_{options.table.stem}"
    where = f"{table.device.name}, {backend.name}"
    rows = found.save_csv(folder / "validation.csv")
    picture = plot(found, f"{spec.name} on {where}", folder / "validation.png") if table.unit == "ms" else None
    if elsewhere:
        write_lines(
            f"note: the table is of {table.device.name} ({table.device.processor}), the networks were measured on "
            f"{this_device().name if backend.clocked else backend.device.name} ({backend.device.processor}): scale and "
            "order may differ"
        )
    if found.machine is not None:
        clock = abs(found.predicted_ms / found.raw_ms - 1).mean()
        write_lines(
            f"the reference network takes {100 * (found.machine - 1):+.1f} % longer than when the table was measured; "
            f"the results below are corrected for this (without the correction the mean error is {100 * clock:.2f} %)"
        )
    write_lines(
        f"{options.networks} networks of {spec.name} with {backend.name} {backend.version}, "
        f"{found.measured_ms.min():.4g} to {found.measured_ms.max():.4g} {table.unit}",
        f"error: mean {100 * found.mean_error:.2f} %, worst {100 * found.worst_error:.2f} %, "
        f"bias {100 * found.bias:+.2f} %",
        f"rank correlation: Spearman {found.spearman:.4f}, Kendall {found.kendall:.4f}",
        f"networks: {rows.resolve()}",
        *([f"plot: {picture.resolve()}"] if picture else []),
    )
    return 0


def run_show(options: argparse.Namespace) -> int:
    from ..latency import LatencyTable
    from ..latency.predict import costs_of, space_of
    from ..latency.show import describe, layer_bars, most_expensive

    table = LatencyTable.load(options.table)
    spec = None if table.names_layers and options.space is None else space_of(table, options.space)
    lines = describe(table)
    if spec is not None or table.names_layers:
        lines += ["", *layer_bars(costs_of(table, spec))]
    write_lines(*lines, "", "most expensive entries", *most_expensive(table, options.top))
    return 0


def run_import(options: argparse.Namespace) -> int:
    from ..latency.published import import_table

    found = import_table(options.file, options.format, device=options.device)
    found.table.save(options.out)
    write_lines(f"{found.known} of {len(found.table.operators)} entries match operators of this package")
    if found.by_name:
        write_lines(f"kept by name only (other operators, squeeze-and-excite, h-swish): {len(found.by_name)}")
    for space, (count, lacking) in found.lacks.items():
        listed = "" if not lacking or len(lacking) == count else f", such as {lacking[0]}"
        write_lines(
            f"space {space}: " + (f"lacks {len(lacking)} of {count} operators{listed}" if lacking else "complete")
        )
    write_lines(
        "not in the file: processor, backend, number format, threads, date, calibration on whole networks",
        f"table: {options.out.resolve()}",
    )
    return 0


def run_compare(options: argparse.Namespace) -> int:
    from ..latency.compare import compare
    from ..latency.judgement import load_judged

    first, second = load_judged(options.first), load_judged(options.second)
    found = compare(first, second)
    write_lines(
        f"first:  {first.device.name}, {first.backend} ({first.unit}); {found.only_first} entries the second lacks",
        f"second: {second.device.name}, {second.backend} ({second.unit}); {found.only_second} entries the first lacks",
        "",
    )
    heading = ["operators", "number", "Spearman", "second / first"]
    write_table(
        [heading, *([k.kind, str(k.operators), f"{k.spearman:.3f}", f"{k.ratio:.4g}"] for k in found.kinds)],
        [
            f"{heading[0]:24}  {heading[1]:>6}  {heading[2]:>8}  {heading[3]}",
            *(f"{k.kind:24}  {k.operators:6}  {k.spearman:8.3f}  {k.ratio:.4g}" for k in found.kinds),
        ],
    )
    write_lines(
        "",
        "they disagree most on (second / first, relative to the median ratio)",
        *(
            f"{d.factor:8.2f}  {d.entry}  ({d.first:.4g} and {d.second:.4g})"
            for d in found.disagreements[: options.top]
        ),
    )
    return 0


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
