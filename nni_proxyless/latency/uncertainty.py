"""Standard deviations of the predictions of a fitted table.

The costs θ of all choices and the fixed cost have a covariance U Uᵀ of low rank. A network that chooses the rows x of U
has the predicted latency ŷ and the standard deviation sqrt(|u₀ + Σ u_x|² + (noise · ŷ)²). The first term is the
uncertainty of the costs. The second is the part of the latency that no table of this form explains, including the noise
of a measurement. The standard deviation therefore applies to a single new measurement of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LatencyTableError, shown, unknown_name
from ..values import MOST_LATENCY_MS, is_number
from .arrays import FloatArray
from .entries import Choice

_KEYS = ("noise", "fixed_ms", "choices_ms")


@dataclass(frozen=True)
class Uncertainty:
    """Uncertainty of the costs of a fitted table.

    Attributes:
        noise: Standard deviation of a network's latency around the table's additive model, relative to the latency.
        fixed: Row of the factor U for the fixed cost, in milliseconds, of length r.
        choices: Row of U for each choice, in milliseconds, each of length r.
    """

    noise: float
    fixed: tuple[float, ...]
    choices: Mapping[Choice, tuple[float, ...]]

    def std(self, columns: Mapping[str, Any], predicted: FloatArray) -> FloatArray:
        """Compute the standard deviations of predictions.

        Args:
            columns: Names of the chosen candidates of `n` networks, shape (n,), by layer label. Other keys are ignored.
            predicted: Predicted latencies in milliseconds, shape (n,).

        Returns:
            Standard deviations in milliseconds, shape (n,).
        """
        total = np.tile(np.array(self.fixed), (len(predicted), 1))  # (n, r)
        for label in dict.fromkeys(choice.layer for choice in self.choices):
            names, codes = np.unique(np.asarray(columns[label]), return_inverse=True)
            total += np.array([self.choices[Choice(label, str(name))] for name in names])[codes]
        return self._std(total, predicted)

    def std_of_distribution(self, distribution: Mapping[str, Mapping[str, float]], predicted: float) -> float:
        """Compute the standard deviation of an expected latency; see `predict.expected`."""
        total = np.array(self.fixed)
        for label, probs in distribution.items():
            for name, p in probs.items():
                if (choice := Choice(label, name)) in self.choices:
                    total = total + p * np.array(self.choices[choice])
        return float(self._std(total[None], np.array([predicted]))[0])

    def _std(self, total: FloatArray, predicted: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.sum(total**2, axis=1) + (self.noise * predicted) ** 2))

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the key `uncertainty` of a table file.

        The rows of U are in the order of the table. Each is one text of numbers, to keep the file short.
        """
        return {
            "noise": self.noise,
            "fixed_ms": _written(self.fixed),
            "choices_ms": [_written(row) for row in self.choices.values()],
        }

    @classmethod
    def from_dict(cls, content: object, choices: Sequence[Choice], where: str) -> Uncertainty:
        """Create the uncertainty from the content of a table file.

        Args:
            content: Value of the key `uncertainty`.
            choices: Choices of the table, in the order of the file.
            where: Name of the file and key, for messages.

        Raises:
            LatencyTableError: The content is not what `to_dict` returns for a table with these choices.
        """
        if not isinstance(content, Mapping):
            raise LatencyTableError(f"{where} must be a mapping, got {shown(content)}")
        for key in content:
            if key not in _KEYS:
                raise LatencyTableError(f"{where}: {unknown_name('key', key, _KEYS)}")
        noise, fixed, rows = content.get("noise"), content.get("fixed_ms"), content.get("choices_ms")
        if not is_number(noise, 0, MOST_LATENCY_MS):
            raise LatencyTableError(f"{where}.noise must be a number from 0, got {shown(noise)}")
        if not isinstance(rows, list) or len(rows) != len(choices):
            got = f"{len(rows)} rows" if isinstance(rows, list) else shown(rows)
            raise LatencyTableError(f"{where}.choices_ms must have a row for each of {len(choices)} choices, got {got}")
        first, *others = (_read(row, where) for row in (fixed, *rows))
        if any(len(row) != len(first) for row in others):
            raise LatencyTableError(f"{where}: all rows must have {len(first)} numbers, as fixed_ms has")
        return cls(float(noise), first, dict(zip(choices, others, strict=True)))


def _written(row: tuple[float, ...]) -> str:
    return " ".join(map(repr, row))


def _read(row: object, where: str) -> tuple[float, ...]:
    try:
        found = tuple(map(float, row.split())) if isinstance(row, str) else None
    except ValueError:
        found = None
    if found is None or not all(is_number(value, -MOST_LATENCY_MS, MOST_LATENCY_MS) for value in found):
        raise LatencyTableError(f"{where}: each row must be a string of finite numbers, got {shown(row)}")
    return found
