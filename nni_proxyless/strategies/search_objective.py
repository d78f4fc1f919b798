"""The objective of an architecture step: loss, expected latency and NNI's penalty in one number (paper eq. 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nni.nas.oneshot.pytorch.profiler import ExpectationProfilerPenalty
from torch import Tensor

from ..latency.costs import SpaceCosts
from ..supernet.gated import probs_by_candidate
from .objective import Objective


@dataclass(frozen=True)
class SearchObjective:
    """Joins what the architecture is trained for.

    Attributes:
        join: Joins loss and expected latency.
        reference_ms: Latency that the expected latency is compared with, in milliseconds.
        candidates: Label to candidates, as an NNI sample names them.
        costs: Latencies of all candidates, or `None` for a search without latency.
        penalty: NNI's penalty, or `None`.
    """

    join: Objective
    reference_ms: float
    candidates: Mapping[str, tuple[Any, ...]]
    costs: SpaceCosts | None = None
    penalty: ExpectationProfilerPenalty | None = None

    def of(
        self, loss: Tensor, probs: Mapping[str, Tensor], latency_weight: float
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The objective, and numbers to log.

        Args:
            loss: Loss of the sampled network, a scalar.
            probs: Label to path probabilities, shape (num_candidates,), differentiable.
            latency_weight: λ, b or μ.

        Returns:
            A scalar that is differentiable in `probs`, and name to number.
        """
        details: dict[str, Tensor | float] = {}
        if self.costs is not None:
            expected_ms = self.costs.expected(probs)
            details["arch/expected_latency_ms"] = expected_ms.detach()
            loss = self.join(loss, expected_ms, self.reference_ms, latency_weight)
        if self.penalty is None:
            return loss, details
        total, more = self.penalised(loss, probs)
        return total, {**details, **more}

    def penalised(self, loss: Tensor, probs: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """A loss with NNI's penalty, and numbers to log; see `of`."""
        assert self.penalty is not None
        distribution = {
            label: probs_by_candidate(of, list(probs[label].unbind())) for label, of in self.candidates.items()
        }
        total, details = self.penalty(loss, distribution)
        return total, {f"penalty/{key}": _number(value) for key, value in details.items()}


def _number(value: Any) -> Tensor | float:
    return value.detach() if isinstance(value, Tensor) else float(value)
