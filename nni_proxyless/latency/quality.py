"""Observations made while a latency table was measured, by which `judgement.py` judges the table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import LatencyTableError, shown, unknown_name
from ..values import MOST_LATENCY_MS, is_number

# Smallest and largest allowed value of each number.
_BOUNDS = {
    "rank_correlation": (-1.0, 1.0),
    "smallest_ms": (0.0, MOST_LATENCY_MS),
    "process_spread": (0.0, math.inf),
    "other_cores": (0.0, math.inf),
    "stolen": (0.0, 1.0),
    "cores": (1, math.inf),
}


@dataclass(frozen=True)
class Quality:
    """Observations made while a table was measured.

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
            file. `judgement.verdict` derives it again.
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
            LatencyTableError: The content is not a mapping, or a value is invalid.
        """
        if not isinstance(content, Mapping):
            raise LatencyTableError(f"{source}: quality must be a mapping, got {shown(content)}")
        for key in content:
            if key not in cls.__annotations__:
                raise LatencyTableError(f"{source}: quality: {unknown_name('key', key, cls.__annotations__)}")
        found: dict[str, Any] = {}
        for name, (least, most) in _BOUNDS.items():
            value = content.get(name)
            if value is not None and not is_number(value):
                raise LatencyTableError(f"{source}: quality.{name} must be a finite number, got {shown(value)}")
            if value is not None and not least <= value <= most:
                allowed = f"a number from {least:g} to {most:g}"
                raise LatencyTableError(f"{source}: quality.{name} must be {allowed}, got {shown(value)}")
            found[name] = value
        for name in ("constant_samples", "accepted"):
            if not isinstance(content.get(name, False), bool):
                raise LatencyTableError(f"{source}: quality.{name} must be true or false, got {shown(content[name])}")
            found[name] = content.get(name, False)
        told, warnings = content.get("verdict"), content.get("warnings", [])
        if not isinstance(warnings, list) or not all(isinstance(text, str) for text in warnings):
            raise LatencyTableError(f"{source}: quality.warnings must be a list of strings, got {shown(warnings)}")
        if told is not None and not isinstance(told, str):
            raise LatencyTableError(f"{source}: quality.verdict must be a string, got {shown(told)}")
        return cls(**found, verdict=told, warnings=tuple(warnings))
