"""The final selection: the most likely architectures are compared with the supernet's weights, and the best is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..decoding.distribution import ArchitectureDistribution
from ..decoding.ranking import rank_values
from .network_score import STATISTICS_BATCHES, NetworkScore

_log = logging.getLogger(__name__)

Rank = Callable[[Sequence[Mapping[str, Any]], Sequence[float], Sequence[float], Sequence[int] | None], list[float]]


@dataclass(frozen=True)
class Finalist:
    """One of the architectures that are compared.

    Attributes:
        choices: Label to candidate.
        log_likelihood: Log of its probability in nats.
        score: The evaluator's metric with the supernet's weights; the higher the better.
        ranked_by: The value that finalists are compared by (`ranking.rank_values`).
        latency_ms: Latency by the table in milliseconds, or `None` without one.
        multiply_adds: Multiply-adds for one image, or `None` where the space does not describe its operators.
    """

    choices: Mapping[str, Any]
    log_likelihood: float
    score: float
    ranked_by: float
    latency_ms: float | None
    multiply_adds: int | None


def compare_finalists(
    architectures: Sequence[Mapping[str, Any]],
    score: Callable[[Mapping[str, Any]], float],
    distribution: ArchitectureDistribution,
    multiply_adds: Sequence[int] | None,
    *,
    weigh_multiply_adds: bool,
    rank: Rank = rank_values,
) -> list[Finalist]:
    """Score and rank architectures.

    Args:
        architectures: Label to candidate, for each architecture.
        score: Gives an architecture's metric with the supernet's weights; the higher the better.
        distribution: The distribution that the architectures come from.
        multiply_adds: Multiply-adds of each architecture, or `None` where they are not known.
        weigh_multiply_adds: Whether they count in the ranking: where a budget keeps the latencies close together.
        rank: Gives the values that architectures are compared by.

    Returns:
        The finalists in the order of `architectures`; `best` gives the one to keep.
    """
    scores = [score(choices) for choices in architectures]
    likelihoods = distribution.log_likelihoods(architectures)
    ranks = rank(architectures, scores, likelihoods, multiply_adds if weigh_multiply_adds else None)
    sizes: Sequence[int | None] = multiply_adds or [None] * len(architectures)
    return [
        Finalist(
            dict(choices),
            likelihood,
            found,
            value,
            None if distribution.costs is None else distribution.costs.of(choices),
            size,
        )
        for choices, likelihood, found, value, size in zip(
            architectures, likelihoods, scores, ranks, sizes, strict=True
        )
    ]


def best(finalists: Sequence[Finalist]) -> Finalist:
    """The finalist with the highest rank value; of equals the first, which is the likeliest."""
    return max(finalists, key=lambda finalist: finalist.ranked_by)


class FinalSelection:
    """The data of the final selection, and its comparison within a running fit.

    Until `use` sets other loaders, they are those of the evaluator: its validation loader compares the finalists, and
    its training loader gives batch-norm statistics.
    """

    def __init__(self) -> None:
        self._validation: Callable[[], Any] | None = None
        self._statistics: Callable[[], Any] | None = None
        self._statistics_batches = STATISTICS_BATCHES

    def use(self, validation: Any, statistics: Any, statistics_batches: int) -> None:
        """Set the loaders; see `LatencyAwareStrategy.compare_on`."""
        self._validation, self._statistics = lambda: validation, lambda: statistics
        self._statistics_batches = statistics_batches

    def use_evaluator(self, evaluator: Any) -> None:
        """Take the loaders of an evaluator, unless `use` has set others. To be called before NNI changes them."""
        if self._validation is not None:
            return
        source = evaluator.datamodule
        if source is None:
            self._validation = lambda: evaluator.val_dataloaders
            self._statistics = lambda: evaluator.train_dataloaders
        else:
            self._validation, self._statistics = source.val_dataloader, source.train_dataloader

    def compare(
        self, architectures: Sequence[Mapping[str, Any]], module: Any, trainer: Any, **ranking: Any
    ) -> list[Finalist]:
        """Compare architectures with the supernet's weights.

        Args:
            architectures: Label to candidate, for each architecture.
            module: The evaluator's Lightning module, whose model is the supernet.
            trainer: The Lightning trainer of the running fit.
            **ranking: Further arguments of `compare_finalists`.
        """
        assert self._validation is not None
        assert self._statistics is not None
        _log.info("comparing %d networks with the supernet's weights", len(architectures))
        score = NetworkScore(
            module, self._validation, self._statistics, trainer.strategy.batch_to_device, self._statistics_batches
        )
        with trainer.precision_plugin.val_step_context():
            compared = compare_finalists(architectures, score.of, **ranking)
        scores = [finalist.score for finalist in compared]
        _log.info("%d networks compared: %s, %.4f to %.4f", len(scores), score.metric, min(scores), max(scores))
        return compared
