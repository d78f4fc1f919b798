"""How the networks of a model space consist of a table's entries, by the choices on which each part depends.

`nni_spaces/space_latency.py` finds it by running networks. A table that has it needs no description of the space: its
costs by layer, and those of several layers at once, follow from its own entries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import LatencyTableError, shown
from . import table_parts as parts
from .arrays import FloatArray
from .costs import SpaceCosts
from .derived import Derived
from .derived_file import derived_from, derived_to
from .joint_costs import JointCosts
from .memory import PEAK_MEMORY, Memory

Count = Literal["parameters", "multiply_adds"]
COUNTS: Mapping[str, Count] = {"params": "parameters", "flops": "multiply_adds"}  # by the unit of a table
_UNKNOWN = "-"  # in a file: the combination belongs to no network


@dataclass(frozen=True)
class Part:
    """Entries and counts that a network has because of some of its choices.

    The tuples have an item for each combination of the candidates. The candidate of the last layer changes fastest.

    Attributes:
        labels: Labels of the choices, and names of derived quantities; none for what every network has.
        entries: Positions of the table's entries; `None` if no network has the combination.
        parameters: Number of parameters.
        multiply_adds: Multiply-adds for one image.
    """

    labels: tuple[str, ...]
    entries: tuple[tuple[int, ...] | None, ...]
    parameters: tuple[float, ...]
    multiply_adds: tuple[float, ...]


@dataclass(frozen=True)
class Composition:
    """Parts of the networks of a model space.

    Attributes:
        candidates: Names of the candidates of each choice, by label.
        parts: Parts. No two have the same labels.
        derived: Quantities that follow from several choices.
        memory: Peak memory of the networks; `None` if it is not known.
    """

    candidates: Mapping[str, tuple[str, ...]]
    parts: tuple[Part, ...]
    derived: tuple[Derived, ...] = ()
    memory: Memory | None = None

    def costs(self, entry_costs: Sequence[float], *, scale: float = 1.0, offset: float = 0.0) -> SpaceCosts:
        """Sum the costs of entries over all networks: offset + scale · Σ.

        Args:
            entry_costs: Cost of each entry of the table, in milliseconds.
            scale: Factor on the sum.
            offset: Cost that is added once, in milliseconds.
        """
        values = {
            part.labels: [
                math.nan if of is None else scale * math.fsum(entry_costs[i] for i in of) for of in part.entries
            ]
            for part in self.parts
        }
        return self._summed(values, "ms", offset)

    def counts(self, name: Count) -> SpaceCosts:
        """Return the parameters or multiply-adds of all networks, for one image."""
        values = {
            part.labels: [
                math.nan if of is None else count for of, count in zip(part.entries, getattr(part, name), strict=True)
            ]
            for part in self.parts
        }
        unit = next(unit for unit, count in COUNTS.items() if count == name)
        return self._summed(values, unit, 0.0)

    def quantities(self) -> dict[str, SpaceCosts]:
        """Return the parameters, multiply-adds and, if it is known, peak memory of all networks, by name.

        Peak memory is the largest of its costs, and the others are the sums of theirs.
        """
        found: dict[str, SpaceCosts] = {}
        for name in COUNTS.values():
            found[name] = self.counts(name)
        if self.memory is not None:
            found[PEAK_MEMORY] = self.memory.costs(self.candidates, self.derived)
        return found

    def _summed(self, values: Mapping[tuple[str, ...], Sequence[float]], unit: str, fixed: float) -> SpaceCosts:
        sums: dict[tuple[str, ...], FloatArray] = {(): np.array(fixed)}
        known = values_by_label(self.candidates, self.derived)
        for labels, of in values.items():
            array = np.array(of, dtype=np.float64).reshape([len(known[label]) for label in labels])
            # No network has such a combination, so its cost is never asked for. The mean disturbs expectations least.
            array = np.where(np.isnan(array), np.nanmean(array), array)
            needed = [axis for axis in range(len(labels)) if np.ptp(array, axis=axis).any()]
            array = array[tuple(slice(None) if axis in needed else 0 for axis in range(len(labels)))]
            key = tuple(labels[axis] for axis in needed)
            sums[key] = sums[key] + array if key in sums else array
        used = {label for key in sums for label in key}
        return SpaceCosts(
            float(sums[()]),
            dict(self.candidates),
            {
                label: tuple(sums[label,].tolist()) if (label,) in sums else (0.0,) * len(names)
                for label, names in self.candidates.items()
            },
            unit,
            tuple(
                JointCosts(k, tuple(array.ravel().tolist()))
                for k, array in sums.items()
                if len(k) > 1 or (k and k[0] not in self.candidates)
            ),
            tuple(each for each in self.derived if each.name in used or each.allowed < len(each.values)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the key `composition` of a table file.

        The items of a part are separated by commas, and the entries of an item by spaces.
        """
        return {
            "candidates": {label: list(names) for label, names in self.candidates.items()},
            "parts": [
                {
                    "labels": list(part.labels),
                    "entries": ", ".join(_UNKNOWN if of is None else " ".join(map(str, of)) for of in part.entries),
                    "parameters": ", ".join(f"{count:.15g}" for count in part.parameters),
                    "multiply_adds": ", ".join(f"{count:.15g}" for count in part.multiply_adds),
                }
                for part in self.parts
            ],
            **({"derived": [derived_to(quantity) for quantity in self.derived]} if self.derived else {}),
            **({} if self.memory is None else {"memory": self.memory.to_dict()}),
        }

    @classmethod
    def from_dict(cls, content: object, entries: int, source: str) -> Composition:
        """Create a composition from the content of a table file. Error messages call the file `source`.

        Args:
            content: Value of the key `composition`.
            entries: Number of entries of the table.
            source: Name of the file.

        Raises:
            LatencyTableError: A key is unknown, or a value has the wrong type or is out of range.
        """
        where = f"{source}: composition"
        own = parts.mapping(content, where, ("candidates", "parts", "derived", "memory"))
        candidates: dict[str, tuple[str, ...]] = {}
        for label, names in parts.mapping(own.get("candidates"), f"{where}.candidates").items():
            good = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
            if not (isinstance(label, str) and good and len(set(names)) == len(names)):
                raise LatencyTableError(
                    f"{where}: {shown(label)} must have a list of different names, got {shown(names)}"
                )
            candidates[label] = tuple(names)
        listed = own.get("parts")
        if not isinstance(listed, list):
            raise LatencyTableError(f"{where}.parts must be a list, got {shown(listed)}")
        derived = derived_from(own.get("derived", []), candidates, where)
        known = values_by_label(candidates, derived)
        found = [_part(row, known, entries, f"{where}: part {n}") for n, row in enumerate(listed, start=1)]
        if len({part.labels for part in found}) < len(found):
            raise LatencyTableError(f"{where}: two parts have the same labels")
        sizes, memory = {label: len(of) for label, of in known.items()}, own.get("memory")
        kept = None if memory is None else Memory.from_dict(memory, sizes, f"{where}.memory")
        return cls(candidates, tuple(found), derived, kept)


def values_by_label(candidates: Mapping[str, Sequence[str]], derived: Sequence[Derived]) -> dict[str, Sequence[str]]:
    """Return the candidates of each choice by label, and the values of each derived quantity by name."""
    return {**candidates, **{quantity.name: quantity.values for quantity in derived}}


def _part(row: object, candidates: Mapping[str, Sequence[str]], entries: int, where: str) -> Part:
    own = parts.mapping(row, where, Part.__annotations__)
    labels = parts.labels_from(own.get("labels"), candidates, where)
    count = math.prod(len(candidates[label]) for label in labels)

    numbers = [parts.numbers_from(own.get(key), count, f"{where}: {key}") for key in COUNTS.values()]
    items = parts.items_from(own.get("entries"), count, f"{where}: entries")
    return Part(labels, tuple(_entries(item, entries, where) for item in items), *numbers)


def _entries(item: str, entries: int, where: str) -> tuple[int, ...] | None:
    if item == _UNKNOWN:
        return None
    words = item.split()
    if not all(word.isascii() and word.isdigit() and len(word) < 10 and int(word) < entries for word in words):
        raise LatencyTableError(
            f"{where}: entries must be positions of operators from 0 to {entries - 1}, or '-', got {shown(item)}"
        )
    return tuple(map(int, words))
