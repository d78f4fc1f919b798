"""One of the architectures that are compared at the end of a search, and the order of several."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finalist:
    """One of the architectures that are compared.

    Attributes:
        choices: Mapping from labels to candidates.
        log_likelihood: Logarithm of the architecture's probability, in nats.
        score: Metric of the evaluator with the supernet's weights; the higher the better.
        ranked_by: Value by which finalists are compared (`ranking.rank_values`); the higher the better.
        latency_ms: Latency predicted by the table, in milliseconds; `None` without a table.
        multiply_adds: Multiply-adds for one image; `None` if the space does not describe its operators.
        latency_std_ms: Standard deviation of a measurement around `latency_ms`; `None` if the table does not know it.
        above_budget: Probability that a measurement exceeds the budget; `None` without a budget or `latency_std_ms`.
        trained_steps: Number of steps that the network was trained for alone (`halving`).
        trained_score: Metric after these steps; `None` without them.
    """

    choices: Mapping[str, Any]
    log_likelihood: float
    score: float
    ranked_by: float
    latency_ms: float | None
    multiply_adds: int | None
    latency_std_ms: float | None = None
    above_budget: float | None = None
    trained_steps: int = 0
    trained_score: float | None = None

    @property
    def rank(self) -> tuple[bool, float]:
        """Sort key before any training. A network whose score is infinite or not a number comes last."""
        return (math.isfinite(self.score), self.ranked_by)

    @property
    def standing(self) -> tuple[int, float, tuple[bool, float]]:
        """Sort key; the higher the better: rounds of training, then the score after them, then the rank."""
        score = 0.0 if self.trained_score is None else self.trained_score
        return (self.trained_steps, -math.inf if math.isnan(score) else score, self.rank)


def best(finalists: Sequence[Finalist]) -> Finalist:
    """Return the finalist with the highest `standing`, which is `rank` if none was trained further.

    Among several such finalists, it is the first one, which is the most likely.
    """
    return max(finalists, key=lambda finalist: finalist.standing)
