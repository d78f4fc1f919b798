"""What was seen while a latency table was measured; `judgement.py` judges the table by it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import LatencyTableError


@dataclass(frozen=True)
class Quality:
    """What was seen while a table was measured.

    Attributes:
        rank_correlation: Spearman's rank correlation of the predicted and measured latencies of the networks that
            calibrated the table; `None` without them.
        smallest_ms: Smallest measured latency of these networks, in milliseconds; `None` without them.
        process_spread: Mean absolute deviation of an operator's latencies in the measuring processes from their
            median, relative to the median and weighted by it; `None` if there was only one process.
        constant_samples: Whether all samples of each operator were equal.
        other_cores: Mean number of cores that other programs used during the measurement; `None` if unknown.
        stolen: Share of the CPU time that a hypervisor took away during the measurement; `None` if unknown.
        cores: Number of logical cores of the measuring machine; `None` if unknown.
        accepted: Whether the user has accepted the table whatever its quality.
        verdict: Verdict on the table when it was written: `good`, `doubtful` or `bad`. It is for people who read the
            file. `judgement.verdict` forms it anew.
        warnings: Reasons of that verdict.
    """

    rank_correlation: float | None = None
    smallest_ms: float | None = None
    process_spread: float | None = None
    constant_samples: bool = False
    other_cores: float | None = None
    stolen: float | None = None
    cores: int | None = None
    accepted: bool = False
    verdict: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, content: object, source: str) -> Quality:
        """Create a quality from a part of a table's file. Error messages call the file `source`.

        Raises:
            LatencyTableError: The content is no mapping, or a value is invalid.
        """
        if not isinstance(content, Mapping):
            raise LatencyTableError(f"{source}: quality must be a mapping, got {content!r}")
        found: dict[str, Any] = {}
        for name in ("rank_correlation", "smallest_ms", "process_spread", "other_cores", "stolen", "cores"):
            value = content.get(name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            if value is not None and not number:
                raise LatencyTableError(f"{source}: quality.{name} must be a finite number, got {value!r}")
            found[name] = value
        for name in ("constant_samples", "accepted"):
            if not isinstance(content.get(name, False), bool):
                raise LatencyTableError(f"{source}: quality.{name} must be true or false, got {content[name]!r}")
            found[name] = content.get(name, False)
        told, warnings = content.get("verdict"), content.get("warnings", [])
        if not isinstance(warnings, list):
            raise LatencyTableError(f"{source}: quality.warnings must be a list, got {warnings!r}")
        return cls(**found, verdict=None if told is None else str(told), warnings=tuple(map(str, warnings)))
