"""Checks of measurements, basis tables and counts against each other, and warnings about a fitted table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import InputError, LatencyTableError, misfit
from ..architectures_file import Measurements
from ..arrays import FloatArray
from ..costs import SpaceCosts
from ..counts import Counts
from ..table import LatencyTable
from .encoding import Encoding

_OUTLIER = 3.0  # factor between a measured and an expected latency
_MOST_OUTLIERS = 0.2  # part of the networks; if more do not fit, the model is at fault


def common_candidates(
    measurements: Measurements, costs: Sequence[SpaceCosts], basis: Sequence[LatencyTable], counts: Counts | None
) -> dict[str, tuple[str, ...]]:
    """Return the candidates of each layer: those common to all basis tables and counts, or else the measured ones.

    Raises:
        InputError: The counts are of other layers than the measurements, or lack a measured candidate.
        LatencyTableError: A basis table is not in milliseconds, is of other layers, or lacks a measured candidate.
    """
    measured = measurements.candidates
    counted = None if counts is None else counts.candidates
    if counts is not None and counted is not None:
        _check_layers(f"{counts.source} are", measured, counted, InputError)
    if not costs:
        return measured if counted is None else {label: counted[label] for label in measured}
    for table, cost in zip(basis, costs, strict=True):
        name = f"the basis table of {table.device.name} ({table.backend})"
        if table.unit != "ms":
            raise LatencyTableError(f"{name} is in {table.unit}, not in ms")
        _check_layers(f"{name} is", measured, cost.candidates, LatencyTableError)
    known = [cost.candidates for cost in costs] + ([] if counted is None else [counted])
    return {label: tuple(str(n) for n in known[0][label] if all(n in of[label] for of in known)) for label in measured}


def shared_candidates(known: Sequence[tuple[str, Mapping[str, Sequence[str]]]]) -> dict[str, tuple[str, ...]]:
    """Return the candidates of each layer that all descriptions of a space have.

    Args:
        known: Names of the descriptions, for messages, and the candidates of each layer.

    Raises:
        InputError: The descriptions have different layers, or no candidate of a layer in common.
    """
    first, layers = known[0]
    for name, others in known[1:]:
        if set(others) != set(layers):
            differing = sorted(set(others) ^ set(layers))
            raise InputError(f"{first} and {name} have different layers: {', '.join(differing[:5])}")
    found = {
        label: tuple(n for n in names if all(n in of[label] for _, of in known)) for label, names in layers.items()
    }
    empty = [label for label, names in found.items() if not names]
    if empty:
        raise InputError(f"{first} and {known[-1][0]} have no candidate of layer {empty[0]} in common")
    return found


def _check_layers(
    what: str, measured: Mapping[str, Sequence[str]], known: Mapping[str, Sequence[str]], error: type[InputError]
) -> None:
    missing, surplus = sorted(set(measured) - set(known)), sorted(set(known) - set(measured))
    if missing or surplus:
        raise error(f"{what} of another space than the measurements: layers {misfit(missing, surplus)}")
    for label, names in measured.items():
        lacking = sorted(set(names) - set(known[label]))
        if lacking:
            raise error(f"{what} without the measured candidate(s) {', '.join(lacking)} of layer {label}")


def warnings_of(
    measurements: Measurements, encoding: Encoding, informed: bool, left_out: FloatArray, rank: float
) -> tuple[str, ...]:
    """Return the reasons for the user to distrust the table.

    Args:
        measurements: Whole networks and their latencies.
        encoding: Encoding of the candidates.
        informed: Whether the fit knows basis tables or counts.
        left_out: Relative residuals of the networks left out in cross-validation, shape (n,); those of a part of the
            networks if there are very many.
        rank: Cross-validated rank correlation.
    """
    found = []
    error = float(np.mean(np.abs(left_out)))
    n, freedom = len(measurements), sum(len(names) - 1 for names in encoding.candidates.values())
    if not informed and n < freedom:
        found.append(
            f"{n} networks for {freedom} unknown costs: the table relies on the similarity of candidates with "
            f"similar names; measure about {2 * freedom}, or give --space, --counts or --basis"
        )
    rare = [
        str(choice) for choice in encoding.choices if not np.any(measurements.layers[choice.layer] == choice.candidate)
    ]
    if rare:
        shown = ", ".join(rare[:3]) + (f" and {len(rare) - 3} more" if len(rare) > 3 else "")
        found.append(f"never measured{', known from the basis or the counts only' if informed else ''}: {shown}")
    found += _outliers(measurements, left_out)
    # A correlation from few networks is uncertain by about 1 / sqrt(n - 3).
    if not rank > 2.0 / np.sqrt(max(n - 3, 1)):
        found.append(
            f"the data does not support a table: networks left out are ranked no better than by chance "
            f"(Spearman {rank:.2f} of {n})"
        )
    elif error > 0.1 or rank < 0.7:
        found.append(
            f"predictions of networks left out are poor ({100 * error:.0f} % error, Spearman {rank:.2f}): is the "
            "device quiet, and does each row hold the median of many runs?"
        )
    return tuple(found)


def _outliers(measurements: Measurements, left_out: FloatArray) -> list[str]:
    """Name the latencies that the other networks contradict. They count little in the fit."""
    if len(left_out) != len(measurements):
        return []
    ratio = 1.0 / np.maximum(1.0 - left_out, 1e-6)  # measured / predicted
    rows = np.flatnonzero(np.maximum(ratio, 1.0 / ratio) > _OUTLIER)
    if not len(rows) or len(rows) > _MOST_OUTLIERS * len(ratio):
        return []
    named = ", ".join(
        f"{time:.4g} ms where about {time / factor:.3g} ms are expected"
        for time, factor in zip(measurements.latency_ms[rows[:3]], ratio[rows[:3]], strict=True)
    )
    return [f"{len(rows)} of {len(ratio)} latencies do not fit the others: {named}; are all in milliseconds?"]


def unique_name(table: LatencyTable, index: int, basis: Sequence[LatencyTable]) -> str:
    name = table.device.name
    return name if [t.device.name for t in basis].count(name) == 1 else f"{name} #{index + 1}"
