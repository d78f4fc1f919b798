"""A table applied to a space: what each candidate of each layer adds, and the sums that follow.

E[lat] = fixed + Σ_layers Σ_i p_i F(o_i) is linear in the path probabilities and ∂E/∂p_i = F(o_i) (paper section
3.3.1, eq. 5 and 6). One traversal serves a choice, a distribution and the two ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..errors import InputError, unknown_name

_T = TypeVar("_T")


@dataclass(frozen=True)
class SpaceCosts:
    """What each candidate of each layer adds, in the table's unit (ms, FLOPs, parameters).

    Attributes:
        fixed: What every network has, calibration offset included.
        candidates: Label to candidate names.
        layers: Label to the cost of each candidate, in the same order; a skip costs 0.
        unit: The table's unit.
    """

    fixed: float
    candidates: Mapping[str, tuple[str, ...]]
    layers: Mapping[str, tuple[float, ...]]
    unit: str = "ms"

    def _total(self, layer_cost: Callable[[str, tuple[float, ...]], _T]) -> _T | float:
        """The one traversal: `layer_cost` weighs a layer's costs by a choice or by a distribution."""
        total: Any = self.fixed
        for label, costs in self.layers.items():
            total = total + layer_cost(label, costs)
        return total  # type: ignore[no-any-return]

    def of(self, choices: Mapping[str, str]) -> float:
        """Cost of one architecture.

        Args:
            choices: Label to candidate name.

        Raises:
            InputError: A label is missing or a candidate does not exist.
        """
        return float(self._total(lambda label, costs: costs[self._position(label, choices.get(label))]))

    def of_many(self, columns: Mapping[str, Sequence[str] | npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        """Cost of many architectures at once.

        Args:
            columns: Label to candidate names, one for each of the `n` architectures; other keys are ignored.

        Returns:
            Costs, shape (n,).

        Raises:
            InputError: A label is missing or a candidate does not exist.
        """
        missing = [label for label in self.layers if label not in columns]
        if missing:
            raise InputError(f"the architectures lack the layer(s) {', '.join(missing)}")

        def of_layer(label: str, costs: tuple[float, ...]) -> npt.NDArray[np.float64]:
            names, codes = np.unique(np.asarray(columns[label]), return_inverse=True)
            return np.array([costs[self._position(label, name)] for name in names], dtype=np.float64)[codes]

        return np.asarray(self._total(of_layer), dtype=np.float64)

    def expected(self, probs: Mapping[str, Tensor]) -> Tensor:
        """E[cost] = fixed + Σ_layers Σ_i p_i F(o_i), differentiable (paper eq. 5 and 6).

        Args:
            probs: Label to path probabilities, shape (num_candidates,).
        """

        def of_layer(label: str, costs: tuple[float, ...]) -> Tensor:
            p = probs[label]
            return torch.dot(p, torch.tensor(costs, dtype=p.dtype, device=p.device))

        return torch.as_tensor(self._total(of_layer))

    @property
    def smallest(self) -> float:
        """Cost of the cheapest network."""
        return float(self._total(lambda _, costs: min(costs)))

    @property
    def largest(self) -> float:
        """Cost of the dearest network."""
        return float(self._total(lambda _, costs: max(costs)))

    @cached_property
    def _positions(self) -> dict[str, dict[Any, int]]:
        return {label: {name: i for i, name in enumerate(names)} for label, names in self.candidates.items()}

    def _position(self, label: str, candidate: object) -> int:
        positions = self._positions[label]
        if candidate is None:
            raise InputError(f"the architecture lacks layer {label}")
        if candidate not in positions:
            raise InputError(f"layer {label}: " + unknown_name("candidate", candidate, positions))
        return positions[candidate]
