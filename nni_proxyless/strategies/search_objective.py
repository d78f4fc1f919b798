"""Objective of an architecture step: loss, expected latency and NNI's penalty in one number (paper eq. 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import Tensor

from ..decoding.constraint import Constraint
from ..latency.costs import SpaceCosts
from ..supernet.candidates import probs_by_candidate
from .objective import Objective, budget


@dataclass(frozen=True)
class SearchObjective:
    """Combines the loss, the expected latency and NNI's penalty.

    Attributes:
        join: Objective that combines the loss and the expected latency.
        reference_ms: Reference latency of the objective, in milliseconds.
        candidates: Mapping from labels to candidates, as an NNI sample names them.
        costs: Latencies of all candidates; `None` for a search without latency.
        penalty: NNI's penalty; `None` for a search without penalty.
        constraints: Further budgets, each a quantity that adds up over the layers.
    """

    join: Objective
    reference_ms: float
    candidates: Mapping[str, tuple[Any, ...]]
    costs: SpaceCosts | None = None
    penalty: ExpectationProfilerPenalty | None = None
    constraints: tuple[Constraint, ...] = ()

    def of(
        self, loss: Tensor, probs: Mapping[str, Tensor], latency_weight: float, weights: Sequence[float] = ()
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Compute the objective.

        Args:
            loss: Loss of the sampled network, a scalar.
            probs: Path probabilities of each label, shape (num_candidates,), differentiable.
            latency_weight: Weight of the latency: λ, b or μ.
            weights: Weight μ of each constraint. Its term is μ (E / limit - 1), as for a latency budget.

        Returns:
            Objective, a scalar that is differentiable in `probs`, and values to log, by name.
        """
        details: dict[str, Tensor | float] = {}
        if self.costs is not None:
            expected_ms = self.costs.expected(probs)
            details["arch/expected_latency_ms"] = expected_ms.detach()
            loss = self.join(loss, expected_ms, self.reference_ms, latency_weight)
        for constraint, weight in zip(self.constraints, weights, strict=True):
            expected = constraint.costs.expected(probs)
            details[f"arch/expected_{constraint.name}"] = expected.detach()
            loss = budget(loss, expected, constraint.limit, weight)
        if self.penalty is None:
            return loss, details
        total, more = self.penalised(loss, probs)
        return total, {**details, **more}

    def expected_ms(self, path_probs: Callable[[], Mapping[str, Tensor]]) -> float | None:
        """Compute E[latency] in milliseconds; `None` without costs. `path_probs` returns the current probabilities."""
        if self.costs is None:
            return None
        with torch.no_grad():
            return float(self.costs.expected(path_probs()))

    def expected_quantities(self, path_probs: Callable[[], Mapping[str, Tensor]]) -> list[float]:
        """Compute the expectation of each constraint's quantity; `path_probs` returns the current probabilities."""
        if not self.constraints:
            return []
        with torch.no_grad():
            probs = path_probs()
            return [float(constraint.costs.expected(probs)) for constraint in self.constraints]

    def limits(self, limit_ms: float | None) -> list[Constraint]:
        """Return all constraints, with the latency budget of the own target in milliseconds if there is one."""
        own = [] if self.costs is None or limit_ms is None else [Constraint("latency", limit_ms, self.costs)]
        return [*own, *self.constraints]

    def penalised(self, loss: Tensor, probs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Add NNI's penalty to a loss; see `of` for arguments and results."""
        assert self.penalty is not None
        distribution = {
            label: probs_by_candidate(of, list(probs[label].unbind())) for label, of in self.candidates.items()
        }
        total, details = self.penalty(loss, distribution)
        return total, {f"penalty/{key}": _number(value) for key, value in details.items()}


def _number(value: Any) -> Tensor | float:
    return value.detach() if isinstance(value, Tensor) else float(value)
