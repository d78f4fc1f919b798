"""Import of published latency tables: the table of ProxylessNAS (Pixel 1) and those of once-for-all.

Both formats are YAML. They map the name of an operator, which includes its shapes, to `mean`, `count` and `var` or
`std`, in milliseconds:

    expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0: {mean: 6.24, ...}

In the once-for-all format, `expand` is the number of hidden channels, and squeeze-and-excite (`se`) and h-swish (`hs`)
are flags. Entries without an equivalent `Operator` in this package keep their published name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, LatencyTableError, clipped, shown, unknown_name
from ..files.reading import read_mapping
from ..network.operators import MOST_SIZE, Operator
from ..network.space_spec import SpaceSpec, shipped_spaces
from ..values import MOST_LATENCY_MS, is_number
from .device import Device
from .entries import Entry, ModuleCall
from .table import LatencyTable, OperatorCost

FORMATS = ("proxylessnas", "once-for-all")
_CONV = re.compile(r"(Conv|Conv_1)-input:(\d+)x(\d+)x(\d+)-output:(\d+)x(\d+)x(\d+)")
_LOGITS = re.compile(r"Logits-input:(\d+)x(\d+)x(\d+)-output:(\d+)")
_BLOCK = re.compile(
    r"expanded_conv-input:(\d+)x(\d+)x(\d+)-output:(\d+)x(\d+)x(\d+)-expand:(\d+)-kernel:(\d+)-stride:(\d+)"
    r"-idskip:([01])(?:-se:([01])-hs:([01]))?"
)
_SHAPE = re.compile(r"input:(\d+(?:x\d+)*)")


@dataclass(frozen=True)
class Imported:
    """An imported table, and how completely it covers the shipped spaces.

    Attributes:
        table: Imported table.
        known: Number of entries that were converted to an `Operator`.
        by_name: Published names of the entries that were not converted.
        lacks: Number of operators and the operators that the table lacks, by shipped space.
    """

    table: LatencyTable
    known: int
    by_name: tuple[str, ...]
    lacks: Mapping[str, tuple[int, tuple[Operator, ...]]]


def import_table(path: Path, form: str, *, device: str | None = None) -> Imported:
    """Read a published table.

    Args:
        path: Path of the published YAML file.
        form: Format of the file, `proxylessnas` or `once-for-all`.
        device: Name of the measured device. Defaults to the file name without its extension.

    Raises:
        InputError: The format is unknown.
        LatencyTableError: The file cannot be read, or an entry does not have the given format.
    """
    if form not in FORMATS:
        raise InputError(unknown_name("format", form, FORMATS))
    content = read_mapping(path, "published table", LatencyTableError)
    operators: dict[Entry, OperatorCost] = {}
    by_name = []
    for name, entry in content.items():
        cost = _cost(entry, f"published table {path}: {clipped(name)}")
        _check_sizes(name, path)
        operator = _operator(name, form)
        if operator is None:
            by_name.append(name)
            key: Entry = _named(name, path)
        else:
            key = operator
        if key in operators:
            raise LatencyTableError(f"published table {path}: {clipped(name)} is a duplicate of entry {key}")
        operators[key] = cost
    if len(by_name) == len(operators):
        raise LatencyTableError(f"published table {path} has no entry that is an operator of the format {form}")
    table = LatencyTable(
        device=Device(device or path.stem, "not stated by the publisher", None),
        backend="published",
        backend_version="not stated",
        dtype="not stated",
        batch=1,
        threads=None,
        date="not stated",
        operators=operators,
        source=f"{path.name}, published with {form}",
    )
    return Imported(table, len(operators) - len(by_name), tuple(by_name), _lacks(table))


def _cost(entry: object, where: str) -> OperatorCost:
    if not isinstance(entry, Mapping):
        raise LatencyTableError(f"{where} must be a mapping with mean, count and var or std, got {shown(entry)}")
    numbers: dict[str, float] = {}
    for key in ("mean", "count", "var", "std"):
        value = entry.get(key)
        if value is None and key in ("var", "std"):
            continue
        least = 1 if key == "count" else 0
        if not is_number(value, least, MOST_LATENCY_MS) or (key == "mean" and not value):
            raise LatencyTableError(f"{where}: {key} must be a positive number, got {shown(value)}")
        numbers[key] = float(value)
    deviation = numbers.get("std", math.sqrt(numbers.get("var", 0.0)))
    return OperatorCost(numbers["mean"], deviation / math.sqrt(numbers["count"]), int(numbers["count"]))


def _check_sizes(name: str, path: Path) -> None:
    """Check that shapes, kernels and strides in a published name are numbers from 1. Flags may be 0."""
    for word in name.split("-"):
        what, _, values = word.partition(":")
        sizes = values.split("x") if what in ("input", "output", "expand", "kernel", "stride") else []
        if any(size.isdecimal() and not (len(size) < 10 and 1 <= int(size) <= MOST_SIZE) for size in sizes):
            raise LatencyTableError(
                f"published table {path}: {shown(name)}: {what} must be from 1 to {MOST_SIZE}, got {clipped(values)}"
            )


def _operator(name: str, form: str) -> Operator | None:
    """Convert a published name to an `Operator`; return `None` if this package has no equivalent operator."""
    if match := _CONV.fullmatch(name):
        shapes = [int(n) for n in match.groups()[1:]]
        source, target = _chw(shapes[:3]), _chw(shapes[3:])
        # In both papers the first convolution is 3 x 3 and the last one 1 x 1. In once-for-all both have an h-swish
        # activation, which an `Operator` cannot express.
        kernel, stride = (3, -(-source[1] // target[1])) if match.group(1) == "Conv" else (1, 1)
        return Operator("conv", source, target, kernel, 1, stride) if form == "proxylessnas" else None
    if match := _LOGITS.fullmatch(name):
        height, width, channels, classes = (int(n) for n in match.groups())
        return Operator("classifier", (channels, height, width), (classes, 1, 1))
    match = _BLOCK.fullmatch(name)
    if match is None:
        return None
    *shapes, expand, kernel, stride = (int(n) for n in match.groups()[:9])
    source, target = _chw(shapes[:3]), _chw(shapes[3:])
    if form == "once-for-all":
        if match.group(11) != "0" or match.group(12) != "0" or expand % source[0]:
            return None
        expand //= source[0]
    residual = stride == 1 and source == target
    if residual != (match.group(10) == "1"):
        return None
    return Operator("mbconv", source, target, kernel, expand, stride)


def _chw(hwc: list[int]) -> tuple[int, int, int]:
    height, width, channels = hwc
    return channels, height, width


def _named(name: str, path: Path) -> ModuleCall:
    match = _SHAPE.search(name)
    if match is None:
        raise LatencyTableError(
            f"published table {path}: {shown(name)} does not name an operator and its input's shape"
        )
    sizes = [int(n) for n in match.group(1).split("x")]
    return ModuleCall(name, (tuple(sizes[-1:] + sizes[:-1]),))


def _lacks(table: LatencyTable) -> dict[str, tuple[int, tuple[Operator, ...]]]:
    found = {}
    for name in shipped_spaces():
        operators = SpaceSpec.from_yaml(name).distinct_operators()
        found[name] = (len(operators), tuple(op for op in operators if op not in table.operators))
    return found
