"""What each candidate of each layer computes: multiply-adds by kind, parameters, activations, convolutions, blocks.

A latency of a device that resembles no known one can be explained by such counts (`fitting/few_shot.py`). They come
from the package for its own spaces (`counts_of_space`), from `nni_spaces/space_counts.py` for any NNI model space, or
from a CSV file (`read_counts`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, clipped, shown
from ..network.operators import Operator
from ..network.space_spec import SpaceSpec
from ..values import MOST_OPERATIONS
from .architectures_file import read_columns, read_numbers
from .arrays import FloatArray
from .entries import Choice

# Numeric columns of a file of counts that describe a layer. Their sum over layers means nothing, so they are not used.
NOT_ADDITIVE = ("in_channels", "out_channels", "stride", "input_size", "output_size", "kernel", "expansion", "groups")


@dataclass(frozen=True)
class Counts:
    """Counts of every candidate of every layer.

    Attributes:
        columns: Names of the `c` counts.
        values: Counts of each candidate, each of length c.
        fixed: Counts that every network has in addition, of length c; zeros if they are not known.
        source: Description of the origin, for messages.
    """

    columns: tuple[str, ...]
    values: Mapping[Choice, tuple[float, ...]]
    fixed: tuple[float, ...]
    source: str

    def of_choices(self, choices: Sequence[Choice]) -> FloatArray:
        """Return the counts of `m` choices, shape (m, c).

        Raises:
            InputError: There are no counts of some choices. The message names the first three.
        """
        missing = [str(choice) for choice in choices if choice not in self.values]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise InputError(
                f"{self.source} lack {', '.join(missing[:3])}{more}: give a row for each candidate of each layer"
            )
        return np.array([self.values[choice] for choice in choices], dtype=np.float64).reshape(len(choices), -1)

    @property
    def candidates(self) -> dict[str, tuple[str, ...]]:
        """Candidate names of each layer, by layer label."""
        found: dict[str, tuple[str, ...]] = {}
        for choice in self.values:
            found[choice.layer] = (*found.get(choice.layer, ()), choice.candidate)
        return found


def counts_of_operator(operator: Operator | None) -> dict[str, float]:
    """Count what an operator computes for one image.

    Args:
        operator: Operator of this package; `None` for a skip, which computes nothing.

    Returns:
        Counts by name. `pointwise_macs`, `depthwise<k>_macs`, `convolution_macs` and `linear_macs` are multiply-adds of
        1 x 1 convolutions, of depthwise convolutions with kernel k, of other convolutions and of the classifier.
        `parameters` includes those of batch-norm. `activations` is the number of values that convolutions and linear
        layers put out. `convolutions` is the number of these layers, and `blocks` is 1.
    """
    if operator is None:
        return {}
    (c_in, h_in, w_in), (c_out, h_out, w_out) = operator.input_shape, operator.output_shape
    pixels_in, pixels_out, k = h_in * w_in, h_out * w_out, operator.kernel
    found = {"parameters": operator.parameters, "blocks": 1}
    if operator.kind != "mbconv":
        kind = "linear" if operator.kind == "classifier" else "pointwise" if k == 1 else "convolution"
        return {
            **found,
            f"{kind}_macs": operator.multiply_adds,
            "activations": c_out * pixels_out,
            "convolutions": 1,
        }
    hidden, expands = operator.hidden_channels, operator.expansion != 1
    return {
        **found,
        "pointwise_macs": (c_in * hidden * pixels_in if expands else 0) + hidden * c_out * pixels_out,
        f"depthwise{k}_macs": hidden * k * k * pixels_out,
        "activations": (hidden * pixels_in if expands else 0) + (hidden + c_out) * pixels_out,
        "convolutions": 3 if expands else 2,
    }


def counts_of_space(spec: SpaceSpec) -> Counts:
    """Count what each candidate of each layer of a space of this package computes, and what all networks share."""
    rows = {
        Choice(layer.label, name): counts_of_operator(operator)
        for layer in spec.layers
        for name, operator in layer.candidates.items()
    }
    return from_rows(rows, [counts_of_operator(operator) for operator in spec.fixed_operators], f"space '{spec.name}'")


def from_rows(rows: Mapping[Choice, Mapping[str, float]], fixed: Sequence[Mapping[str, float]], name: str) -> Counts:
    """Create counts from a mapping of each choice's counts. A count that a mapping omits is 0.

    Args:
        rows: Counts of each candidate, by the name of the count.
        fixed: Counts of the operators that all networks share.
        name: Name of the space, for messages.
    """
    columns = tuple(dict.fromkeys(key for row in (*rows.values(), *fixed) for key in row))
    return Counts(
        columns,
        {choice: tuple(float(row.get(key, 0.0)) for key in columns) for choice, row in rows.items()},
        tuple(float(sum(row.get(key, 0.0) for row in fixed)) for key in columns),
        f"the counts of {name}",
    )


def read_counts(path: Path) -> Counts:
    """Read a CSV file with the columns `layer` and `candidate` and any numeric columns, with a row for each candidate.

    Every numeric column counts, except those that describe a layer instead of counting something (`NOT_ADDITIVE`).

    Raises:
        InputError: The file cannot be read, a cell is empty, `layer` or `candidate` is missing, there is no column of
            counts, a candidate has two rows, or a count is not a number from 0. The message gives the place.
    """
    frame = read_columns(path, "counts")
    for name in ("layer", "candidate"):
        if name not in frame:
            listed = clipped(", ".join(frame.columns))
            raise InputError(f"counts {path} have no column '{name}'; the columns are {listed}")
    columns = tuple(name for name in frame.columns if name not in ("layer", "candidate", *NOT_ADDITIVE))
    if not columns:
        raise InputError(
            f"counts {path} have no column of counts besides layer and candidate; {', '.join(NOT_ADDITIVE)} are unused"
        )
    numbers = {}
    for name in columns:
        numbers[name] = read_numbers(frame[name])
        bad = np.flatnonzero(~((numbers[name] >= 0) & (numbers[name] <= MOST_OPERATIONS)))
        if len(bad):
            raise InputError(
                f"counts {path}: {name} must be a number from 0, got {shown(frame[name].iloc[bad[0]])} in line "
                f"{bad[0] + 2}; remove the column if it is not a count"
            )
    values: dict[Choice, tuple[float, ...]] = {}
    for i, (layer, candidate) in enumerate(zip(frame["layer"], frame["candidate"], strict=True)):
        choice = Choice(str(layer), str(candidate))
        if choice in values:
            raise InputError(f"counts {path}: line {i + 2} is a second row for candidate {choice}")
        values[choice] = tuple(float(numbers[name][i]) for name in columns)
    return Counts(columns, values, (0.0,) * len(columns), f"the counts in {path}")
