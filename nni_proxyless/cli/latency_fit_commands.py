"""The commands `nni-proxyless latency fit`, `suggest` and `predict`: tables fitted to whole networks, and their use."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from .terminal import write_lines

if TYPE_CHECKING:
    from ..latency.architectures_file import ArchitectureFile
    from ..latency.arrays import FloatArray
    from ..latency.counts import Counts
    from ..latency.table import LatencyTable
    from ..network.space_spec import SpaceSpec


def run_fit(options: argparse.Namespace) -> int:
    from ..files.writing import write_csv
    from ..latency.architectures_file import read_measurements
    from ..latency.fitting.encoding import Encoding
    from ..latency.fitting.fit import fit_table
    from ..latency.fitting.suggest import how_many_more, learning_curve, suggest
    from ..latency.predict import costs_of, load_tables

    if options.suggestions is not None and not options.suggest:
        raise InputError(f"--suggestions {options.suggestions} needs --suggest N, the number of networks to suggest")
    read = read_measurements(options.measurements)
    measurements = read.distinct()
    basis = load_tables(options.basis)
    spec = _space(options)
    if spec is not None:
        _check_layers(measurements.layers, spec)
    costs = [costs_of(table, None if table.fitted_to_layers else spec) for table in basis]
    counts = _counts(options, spec)
    fit = fit_table(
        read,
        basis,
        basis_costs=costs,
        counts=counts,
        device=options.device,
        space=None if spec is None else spec.name,
    )
    candidates = fit.table.own_costs().candidates
    _check_number("--suggest", options.suggest, candidates)
    fit.table.save(options.out)
    if len(read) > len(measurements):
        write_lines(f"{len(read)} rows of {len(measurements)} different networks: the median of each network is used")
    write_lines(
        f"cross-validation over {fit.networks} networks: mean error {100 * fit.mean_relative_error:.1f} %, "
        f"Spearman {fit.spearman:.3f}"
    )
    for what, parts in (("mixture", fit.mixture), ("counts", fit.counts)):
        shares = sorted(((share, name) for name, share in parts.items() if share >= 0.005), reverse=True)
        if shares:
            write_lines(f"{what}: " + ", ".join(f"{100 * share:.0f} % {name}" for share, name in shares))
    if fit.residual is not None:
        write_lines(f"residual: {100 * fit.residual:.1f} % of the latency")
    write_lines(how_many_more(learning_curve(measurements, Encoding(candidates), costs, counts=counts)))
    for warning in fit.warnings:
        write_lines(f"warning: {warning}")
    write_lines(f"table: {options.out.resolve()}")
    if options.suggest:
        proposed = suggest(candidates, options.suggest, measurements, basis=costs, counts=counts)
        path = options.suggestions or options.out.with_suffix(".suggestions.csv")
        write_csv(path, list(proposed[0]), proposed)
        write_lines(f"networks to measure next: {path.resolve()}")
    return 0


def run_suggest(options: argparse.Namespace) -> int:
    from ..files.writing import write_csv
    from ..latency.architectures_file import check_layers, read_architectures, read_measurements
    from ..latency.fitting.checks import shared_candidates
    from ..latency.fitting.suggest import suggest
    from ..latency.predict import costs_of, load_tables

    basis = load_tables(options.basis)
    spec = _space(options)
    costs = [costs_of(table, None if table.fitted_to_layers else spec) for table in basis]
    counts = _counts(options, spec)
    known: list[tuple[str, Mapping[str, Sequence[str]]]]
    known = [] if spec is None else [(f"space '{spec.name}'", {layer.label: layer.names for layer in spec.layers})]
    known += [] if counts is None else [(counts.source, counts.candidates)]
    known += [(str(path), cost.candidates) for path, cost in zip(options.basis, costs, strict=True)]
    if not known:
        raise InputError("latency suggest needs to know the layers and candidates: give --space, --counts or --basis")
    candidates = shared_candidates(known)
    _check_number("--networks", options.networks, candidates)
    measured = None if options.measurements is None else read_measurements(options.measurements)
    pool = None if options.among is None else _pool(options.among, read_architectures(options.among), candidates)
    for layers in (None if measured is None else measured.layers, pool):
        if layers is not None:
            check_layers(layers, candidates, known[0][0])
    found = suggest(candidates, options.networks, measured, options.seed, basis=costs, counts=counts, pool=pool)
    write_csv(options.out, list(found[0]), found)
    write_lines(
        f"time these {len(found)} networks and add their latencies as column latency_ms: {options.out.resolve()}",
        "then fit the table: nni-proxyless latency fit --measurements <that file>",
    )
    return 0


def _check_number(option: str, wanted: int, candidates: Mapping[str, Sequence[str]]) -> None:
    different = math.prod(map(len, candidates.values()))
    if wanted > different:
        raise InputError(f"{option} is {wanted}, but there are only {different} different networks")


def _pool(path: Any, architectures: ArchitectureFile, candidates: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
    if architectures.distributions:
        raise InputError(f"--among must list architectures, but {path} holds distributions")
    missing = [label for label in candidates if label not in architectures.columns]
    if missing:
        raise InputError(f"--among: {path} lacks the layer(s) {', '.join(missing)}")
    return {label: architectures.columns[label] for label in candidates}


def _space(options: argparse.Namespace) -> SpaceSpec | None:
    from ..network.space_spec import SpaceSpec

    return None if options.space is None else SpaceSpec.from_yaml(options.space)


def _counts(options: argparse.Namespace, spec: SpaceSpec | None) -> Counts | None:
    """Return the counts of the file, or those of the space, or nothing."""
    from ..latency.counts import counts_of_space, read_counts

    if options.counts is not None:
        if getattr(options, "no_counts", False):
            raise InputError("give --counts or --no-counts, not both")
        return read_counts(options.counts)
    return None if spec is None or getattr(options, "no_counts", False) else counts_of_space(spec)


def _check_layers(layers: Mapping[str, Any], spec: SpaceSpec) -> None:
    from ..latency.architectures_file import check_layers

    check_layers(layers, {layer.label: layer.names for layer in spec.layers}, f"space '{spec.name}'")


def run_predict(options: argparse.Namespace) -> int:
    from ..latency.architectures_file import read_architectures
    from ..latency.judgement import load_judged
    from ..latency.predict import costs_of, predict, predict_std, space_of, write_predictions

    table = load_judged(options.table)
    costs = costs_of(table, None if table.names_layers and options.space is None else space_of(table, options.space))
    architectures = read_architectures(options.architectures)
    predicted = predict(costs, architectures)
    std = predict_std(table, architectures, predicted) if options.std or options.budget_ms is not None else None
    if options.out:
        write_predictions(options.out, architectures, predicted, table, std)
        write_lines(
            f"{len(predicted)} predicted, {predicted.min():.4g} to {predicted.max():.4g} {table.unit}",
            f"predictions: {options.out.resolve()}",
        )
    else:
        doubts = [""] * len(predicted) if std is None else [f" +- {value:.3g}" for value in std]
        write_lines(*(f"{value:.6g}{doubt} {table.unit}" for value, doubt in zip(predicted, doubts, strict=True)))
    if options.budget_ms is not None and std is not None:
        _name_doubtful(options.budget_ms, predicted, std, table)
    return 0


def _name_doubtful(budget_ms: float, predicted: FloatArray, std: FloatArray, table: LatencyTable) -> None:
    from ..latency.doubtful import Doubt, probability_above

    found = [
        (i, doubt)
        for i, (p, s) in enumerate(zip(predicted.tolist(), std.tolist(), strict=True), start=1)
        if (doubt := Doubt(p, s, probability_above(budget_ms, p, s))).doubtful
    ]
    write_lines(
        f"{len(found)} of {len(predicted)} networks may be on either side of {budget_ms:g} {table.unit}"
        + (": time them" if found else ""),
        *(f"network {i}: above the budget with a probability of {100 * doubt.above:.0f} %" for i, doubt in found),
    )
