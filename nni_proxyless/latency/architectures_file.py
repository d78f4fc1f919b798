"""Files of architectures and of their measured latencies.

CSV files have one column per layer. JSON files hold architecture files, NNI samples or distributions.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InputError, clipped, misfit, shown, unknown_name
from ..files.reading import MOST_CSV_BYTES, read_document, read_text
from ..values import LEAST_LATENCY_MS, MOST_LATENCY_MS, is_number
from .arrays import FloatArray

LATENCY_COLUMN = "latency_ms"
MOST_RANGE = 100_000  # of the latencies of one space; mixed units are the usual reason for more
MOST_NAME = 1000  # characters of a layer or candidate


@dataclass(frozen=True)
class Measurements:
    """Measured latencies of whole networks.

    Attributes:
        layers: Names of the chosen candidates of the `n` networks, shape (n,), by layer label.
        latency_ms: Measured latencies in milliseconds, shape (n,).
    """

    layers: Mapping[str, np.ndarray[Any, Any]]
    latency_ms: FloatArray

    def __len__(self) -> int:
        return len(self.latency_ms)

    @property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Sorted names of the candidates that occur in each layer, by layer label."""
        return {label: tuple(sorted(set(column.tolist()))) for label, column in self.layers.items()}

    def rows(self, index: Sequence[int] | np.ndarray[Any, Any]) -> Measurements:
        """Select networks by their row numbers."""
        chosen = np.asarray(index)
        return Measurements({k: column[chosen] for k, column in self.layers.items()}, self.latency_ms[chosen])

    def distinct(self) -> Measurements:
        """Merge the rows of one network into its first row, with their median latency.

        Otherwise, cross-validation would leave out one row of a network while the fit knows another row of it.
        """
        rows_of: dict[tuple[str, ...], list[int]] = {}
        for row, network in enumerate(zip(*(column.tolist() for column in self.layers.values()), strict=True)):
            rows_of.setdefault(network, []).append(row)
        if len(rows_of) == len(self):
            return self
        medians = np.array([np.median(self.latency_ms[rows]) for rows in rows_of.values()])
        return Measurements(self.rows([rows[0] for rows in rows_of.values()]).layers, medians)


def read_columns(path: Path, what: str) -> pd.DataFrame:
    """Read a CSV file whose cells are all non-empty strings.

    Args:
        path: Path of the file.
        what: Description of the content, for error messages.

    Raises:
        InputError: The file cannot be read, has no rows, a column without a name, two columns of the same name or an
            empty cell. The message gives the place.
    """
    text = read_text(path, what, InputError, MOST_CSV_BYTES)
    try:
        header = next(iter(text.splitlines()), "")
        # The header is read as an ordinary row, because pandas would rename the second of two equally named columns.
        frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False, header=None, skipinitialspace=True)
    except pd.errors.EmptyDataError as reason:
        raise InputError(f"{what} {path} is empty; it needs a header and a row for each network") from reason
    except pd.errors.ParserError as reason:
        raise InputError(f"{what} {path} cannot be parsed: {clipped(' '.join(str(reason).split()))}") from reason
    names = [str(name).strip() for name in frame.iloc[0]]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"{what} {path} has more than one column named {clipped(', '.join(map(repr, doubled)))}")
    if "" in names:
        raise InputError(f"{what} {path}: column {names.index('') + 1} has no name in the header: {clipped(header)}")
    frame = frame.iloc[1:].reset_index(drop=True)
    frame.columns = pd.Index(names)
    if not len(frame):
        raise InputError(f"{what} {path} has a header but no rows")
    for name in names:
        frame[name] = frame[name].str.strip()
        empty = frame.index[frame[name].isna() | (frame[name] == "")]
        if len(empty):
            raise InputError(f"{what} {path}: column '{clipped(name)}' is empty in line {empty[0] + 2}")
        _check_length(max(frame[name], key=len), f"{what} {path}: column '{clipped(name)}'")
    return frame


def read_numbers(column: Iterable[str]) -> FloatArray:
    """Convert strings to the nearest floating-point numbers, and to NaN where they are no numbers.

    pandas, up to version 2, may miss the nearest number by one in the last place.
    """

    def number(cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            return math.nan

    return np.array([math.nan if "_" in cell else number(cell) for cell in column], dtype=np.float64)


def read_measurements(path: Path) -> Measurements:
    """Read a CSV file with one column of candidate names per layer, and the column `latency_ms`.

    Raises:
        InputError: The file cannot be read, a cell is empty, a latency is not a positive number, the latencies differ
            by more than a factor of `MOST_RANGE`, there is no column for a layer, or a column has a different value in
            every row.
    """
    frame = read_columns(path, "measurements")
    if LATENCY_COLUMN not in frame:
        raise InputError(
            f"measurements {path} have no column '{LATENCY_COLUMN}'; the columns are "
            f"{clipped(', '.join(frame.columns))}"
        )
    latency_ms = read_numbers(frame[LATENCY_COLUMN])
    bad = np.flatnonzero(~((latency_ms >= LEAST_LATENCY_MS) & (latency_ms <= MOST_LATENCY_MS)))
    if len(bad):
        raise InputError(
            f"measurements {path}: {LATENCY_COLUMN} must be a positive number of milliseconds, got "
            f"{shown(frame[LATENCY_COLUMN].iloc[bad[0]])} in line {bad[0] + 2}"
        )
    low, high = float(latency_ms.min()), float(latency_ms.max())
    if high > MOST_RANGE * low:
        raise InputError(
            f"measurements {path}: {LATENCY_COLUMN} goes from {low:g} to {high:g}, and networks of one space do not "
            f"differ by a factor above {MOST_RANGE:,}; are all in milliseconds?"
        )
    labels = [name for name in frame.columns if name != LATENCY_COLUMN]
    if not labels:
        raise InputError(f"measurements {path} have no column for a layer besides '{LATENCY_COLUMN}'")
    layers = {label: frame[label].to_numpy(dtype=str) for label in labels}
    for label, column in layers.items():
        if len(column) > 2 and len(set(column.tolist())) == len(column):
            raise InputError(
                f"measurements {path}: column '{clipped(label)}' has a different value in each row; if it is a name "
                "and not a layer, remove it"
            )
    return Measurements(layers, latency_ms)


@dataclass(frozen=True)
class ArchitectureFile:
    """Content of a file of `n` architectures or of `n` distributions over architectures.

    Attributes:
        columns: Names of the architectures' candidates, shape (n,), by layer label. Empty if the file has
            distributions.
        distributions: Distributions, each a probability by layer label and candidate name. Empty if the file has
            architectures.
    """

    columns: Mapping[str, np.ndarray[Any, Any]]
    distributions: Sequence[Mapping[str, Mapping[str, float]]] = ()

    def __len__(self) -> int:
        return len(self.distributions) or len(next(iter(self.columns.values()), ()))


def read_architectures(path: Path) -> ArchitectureFile:
    """Read architectures or distributions from a CSV or JSON file.

    A CSV file has one column of candidate names per layer. A JSON file holds one of the following, or a list of them:

    * the content of an `Architecture` file,
    * an NNI sample, which maps layer labels to candidate names,
    * a distribution, which maps layer labels to the probability of each candidate.

    Raises:
        InputError: The file cannot be read or has another content.
    """
    if path.suffix.lower() != ".json":
        frame = read_columns(path, "architectures")
        return ArchitectureFile({name: frame[name].to_numpy(dtype=str) for name in frame.columns})
    content = read_document(path, "architectures", InputError)
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) and entry for entry in entries):
        raise InputError(f"architectures {path} must hold a mapping of labels to candidates, or a list of such")
    samples = [entry.get("choices") if "schema" in entry else entry for entry in entries]
    if not all(isinstance(sample, dict) and set(sample) == set(samples[0]) for sample in samples):
        raise InputError(f"architectures {path}: all must have the same layers")
    if all(isinstance(value, dict) for sample in samples for value in sample.values()):
        return ArchitectureFile({}, [_distribution(sample, path) for sample in samples])
    for label, value in ((label, value) for sample in samples for label, value in sample.items()):
        if not isinstance(value, (str, int, float)):
            raise InputError(
                f"architectures {path} must map each label to a candidate, or each to probabilities, got "
                f"{shown(value)} for layer {shown(label)}"
            )
        _check_length(str(value), f"architectures {path}: layer {shown(label)}")
    return ArchitectureFile({label: np.array([str(sample[label]) for sample in samples]) for label in samples[0]})


def _check_length(text: str, where: str) -> None:
    """Check that a name is not so long that an array of many names would exhaust the memory."""
    if len(text) > MOST_NAME:
        raise InputError(f"{where}: a name must have at most {MOST_NAME} characters, got {shown(text)}")


def _distribution(sample: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, dict[str, float]]:
    for label, probs in sample.items():
        numbers = [p for p in probs.values() if is_number(p, 0, 2)]
        if len(numbers) != len(probs) or not math.isclose(sum(numbers), 1.0, abs_tol=1e-4):
            raise InputError(
                f"architectures {path}: the probabilities of layer {clipped(label)} must be numbers from 0 that add up "
                f"to 1, got {shown(dict(probs))}"
            )
    return {label: {name: float(p) for name, p in probs.items()} for label, probs in sample.items()}


def check_layers(layers: Mapping[str, np.ndarray[Any, Any]], candidates: Mapping[str, Sequence[str]], of: str) -> None:
    """Check that the columns are the layers of a space, and that their values are candidates of these layers.

    Args:
        layers: Names of the chosen candidates, shape (n,), by layer label.
        candidates: Allowed candidate names, by layer label.
        of: Description of the space, for error messages.

    Raises:
        InputError: A layer is missing or unknown, or a candidate is unknown.
    """
    missing, surplus = [k for k in candidates if k not in layers], [k for k in layers if k not in candidates]
    if missing or surplus:
        raise InputError(f"the columns do not fit {of}: {misfit(missing, surplus)}")
    for label, column in layers.items():
        for name in sorted(set(column.tolist())):
            if name not in candidates[label]:
                raise InputError(f"layer {label}: " + unknown_name("candidate", name, candidates[label]))
