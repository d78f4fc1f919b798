"""Peak memory of a model space's networks, by the choices on which each part depends; see `nni_spaces/space_memory.py`.

The peak memory of a network is the largest of its parts. A part has an array of bytes with an axis for each of its
choices, as in `joint_costs.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import LatencyTableError, shown
from . import table_parts as parts
from .costs import SpaceCosts
from .derived import Derived
from .joint_costs import JointCosts

PEAK_MEMORY = "peak_memory"


@dataclass(frozen=True)
class MemoryPart:
    """Peak memory of a part of the networks.

    Attributes:
        labels: Labels of the choices, and names of derived quantities; none for what every network needs.
        peaks: Bytes for each combination of the candidates. The candidate of the last label changes fastest.
    """

    labels: tuple[str, ...]
    peaks: tuple[float, ...]


@dataclass(frozen=True)
class Memory:
    """Peak memory of all networks of a space, for one input.

    Attributes:
        parts: Parts, of which no two have the same labels.
        bounded: Modules whose memory depends on too many choices. Upper bounds stand for it, so the memory of networks
            may be lower than it is said to be. Empty if it is exact.
    """

    parts: tuple[MemoryPart, ...]
    bounded: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether the memory of each network is exact."""
        return not self.bounded

    @property
    def warning(self) -> str | None:
        """Say that the memory is an upper bound, if it is."""
        if self.exact:
            return None
        shown_places = ", ".join(f"'{place}'" for place in self.bounded[:3]) + (", …" if len(self.bounded) > 3 else "")
        return (
            f"peak_memory is an upper bound in this space, because the memory of {len(self.bounded)} module(s) depends "
            f"on many choices at once ({shown_places}); a budget is kept, but networks that are just within it may be "
            "excluded"
        )

    def costs(self, candidates: Mapping[str, tuple[str, ...]], derived: tuple[Derived, ...]) -> SpaceCosts:
        """Return the memory as costs, of which the largest one is that of a network.

        Args:
            candidates: Names of the candidates of each choice, by label.
            derived: Quantities that follow from several choices.
        """
        by_labels = {part.labels: part.peaks for part in self.parts}
        used = {label for labels in by_labels for label in labels}
        return SpaceCosts(
            max(by_labels.get((), (0.0,))),
            dict(candidates),
            {label: by_labels.get((label,), (0.0,) * len(names)) for label, names in candidates.items()},
            "bytes",
            tuple(
                JointCosts(labels, peaks)
                for labels, peaks in by_labels.items()
                if len(labels) > 1 or (labels and labels[0] not in candidates)
            ),
            tuple(quantity for quantity in derived if quantity.name in used or quantity.allowed < len(quantity.values)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the key `memory` of a composition. The items of a part are separated by commas."""
        rows = [
            {"labels": list(part.labels), "bytes": ", ".join(f"{peak:.15g}" for peak in part.peaks)}
            for part in self.parts
        ]
        return {"parts": rows, **({"bounded": list(self.bounded)} if self.bounded else {})}

    @classmethod
    def from_dict(cls, content: object, sizes: Mapping[str, int], where: str) -> Memory:
        """Create the memory from the content of a table file.

        Args:
            content: Value of the key `memory` of a composition.
            sizes: Number of candidates of each label, and of values of each derived quantity.
            where: Place in the file, for error messages.

        Raises:
            LatencyTableError: A key is unknown, or a value has the wrong type or is out of range.
        """
        own = parts.mapping(content, where, ("parts", "bounded"))
        rows, bounded = own.get("parts"), own.get("bounded", [])
        if not isinstance(rows, list):
            raise LatencyTableError(f"{where}.parts must be a list, got {shown(rows)}")
        if not isinstance(bounded, list) or not all(isinstance(place, str) for place in bounded):
            raise LatencyTableError(f"{where}.bounded must be a list of names of modules, got {shown(bounded)}")
        found = tuple(_part(row, sizes, f"{where}: part {number}") for number, row in enumerate(rows, start=1))
        if len({part.labels for part in found}) < len(found):
            raise LatencyTableError(f"{where}: two parts have the same labels")
        return cls(found, tuple(bounded))


def _part(row: object, sizes: Mapping[str, int], where: str) -> MemoryPart:
    own = parts.mapping(row, where, ("labels", "bytes"))
    labels = parts.labels_from(own.get("labels"), sizes, where)
    count = math.prod(sizes[label] for label in labels)
    return MemoryPart(labels, parts.numbers_from(own.get("bytes"), count, f"{where}: bytes"))
