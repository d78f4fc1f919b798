"""Final selection: the most likely architectures are compared with the supernet's weights, and the best one is kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..decoding.distribution import ArchitectureDistribution
from ..latency.doubtful import doubts
from ..latency.table import LatencyTable
from .evaluator_step import to_device_of
from .finalist import Finalist
from .halving import Halving, scored_in
from .network_score import STATISTICS_BATCHES, NetworkScore

_log = logging.getLogger(__name__)

Rank = Callable[[Sequence[Mapping[str, Any]], Sequence[float]], list[float]]


def with_doubts(finalists: Sequence[Finalist], table: LatencyTable | None, budget_ms: float | None) -> list[Finalist]:
    """Add to each finalist the probability of exceeding the budget, if the table has uncertainties.

    Args:
        finalists: Compared architectures.
        table: Latency table of the search.
        budget_ms: Latency budget in milliseconds.
    """
    if table is None or table.uncertainty is None or budget_ms is None:
        return list(finalists)
    found = doubts(table, [finalist.choices for finalist in finalists], budget_ms)
    return [
        replace(finalist, latency_std_ms=doubt.std_ms, above_budget=doubt.above)
        for finalist, doubt in zip(finalists, found, strict=True)
    ]


def compare_finalists(
    architectures: Sequence[Mapping[str, Any]],
    score: Callable[[Mapping[str, Any]], float],
    rank: Rank,
    distribution: ArchitectureDistribution,
    multiply_adds: Sequence[int] | None,
) -> list[Finalist]:
    """Score and rank architectures.

    Args:
        architectures: Architectures as mappings from labels to candidates, the most likely one first.
        score: Function that returns the metric of an architecture with the supernet's weights; the higher the better.
        rank: Function that maps the architectures and their scores to the values by which they are compared.
        distribution: Distribution that the architectures come from.
        multiply_adds: Multiply-adds of each architecture; `None` if they are unknown.

    Returns:
        Finalists in the order of `architectures`. `best` returns the one to keep.
    """
    scores = [score(choices) for choices in architectures]
    likelihoods = distribution.log_likelihoods(architectures)
    ranks = rank(architectures, _finite(scores))
    sizes: Sequence[int | None] = multiply_adds or [None] * len(architectures)
    latency = (lambda _: None) if distribution.costs is None else distribution.costs.of
    return [
        Finalist(dict(choices), likelihood, found, value, latency(choices), size)
        for choices, likelihood, found, value, size in zip(
            architectures, likelihoods, scores, ranks, sizes, strict=True
        )
    ]


def _finite(scores: Sequence[float]) -> list[float]:
    """Replace scores that are not finite by the lowest finite one, so that the others can still be compared."""
    finite = [score for score in scores if math.isfinite(score)]
    if len(finite) < len(scores):
        _log.warning("the metric of %d of %d networks is not finite", len(scores) - len(finite), len(scores))
    lowest = min(finite, default=0.0)
    return [score if math.isfinite(score) else lowest for score in scores]


def _same(loader: Any) -> Any:
    return loader


class FinalSelection:
    """Loaders of the final selection, and the comparison of finalists within a running fit.

    By default, finalists are compared on the evaluator's validation loader, and their batch-norm statistics are
    estimated on its training loader. `use` sets other loaders.

    Args:
        required: Whether an error of the comparison ends the search. If not, it is logged as a warning.

    Attributes:
        halving: How the best finalists are trained further before one of them is chosen; `None` if they are not.
    """

    def __init__(self, required: bool = True) -> None:
        self.halving: Halving | None = None
        self._required = required
        self._training: Callable[[], Any] | None = None
        self._validation: Callable[[], Any] | None = None
        self._statistics: Callable[[], Any] | None = None
        self._statistics_batches = STATISTICS_BATCHES

    def use(self, validation: Any, statistics: Any, statistics_batches: int) -> None:
        """Set the loaders; see `LatencyAwareStrategy.compare_on`."""
        # No lambdas, so that the strategy can be pickled after a search, as NNI's can.
        self._validation, self._statistics = partial(_same, validation), partial(_same, statistics)
        self._statistics_batches = statistics_batches

    def use_evaluator(self, evaluator: Any) -> None:
        """Use the loaders of an evaluator, unless `use` has set others. Call this before NNI changes the loaders."""
        source = evaluator.datamodule
        if source is None:
            training = partial(getattr, evaluator, "train_dataloaders")
            validation = partial(getattr, evaluator, "val_dataloaders")
        else:
            training, validation = source.train_dataloader, source.val_dataloader
        self._training = training
        if self._validation is None:
            self._validation, self._statistics = validation, training

    def compare(
        self,
        architectures: Sequence[Mapping[str, Any]],
        module: Any,
        trainer: Any,
        *,
        rank: Rank,
        distribution: ArchitectureDistribution,
        multiply_adds: Sequence[int] | None,
    ) -> list[Finalist]:
        """Compare architectures with the supernet's weights.

        Args:
            architectures: Architectures as mappings from labels to candidates, the most likely one first.
            module: Lightning module of the evaluator, whose model is the supernet.
            trainer: Lightning trainer of the running fit.
            rank: See `compare_finalists`.
            distribution: See `compare_finalists`.
            multiply_adds: See `compare_finalists`.

        Returns:
            Finalists in the order of `architectures`. The list is empty after an error that does not end the search.
        """
        assert self._validation is not None
        assert self._statistics is not None
        _log.info("comparing %d networks with the supernet's weights", len(architectures))
        try:
            score = NetworkScore(
                module,
                self._validation,
                self._statistics,
                to_device_of(trainer),
                self._statistics_batches,
                trainer.limit_val_batches or 1.0,  # 0 only turns off the validation of epochs
            )
            with trainer.precision_plugin.val_step_context():
                compared = compare_finalists(architectures, score.of, rank, distribution, multiply_adds)
            if self.halving is not None:
                assert self._training is not None
                alone = scored_in(trainer.precision_plugin.val_step_context, score.of)
                compared = self.halving.run(compared, module, trainer, self._training, alone)
        except Exception as reason:  # the evaluator's own code runs here for the first time
            if self._required:
                raise
            _log.warning(
                "the %d most likely networks could not be compared, so the most likely one is exported; finalists=1 "
                "skips the comparison: %s: %s", len(architectures), type(reason).__name__, reason,
            )  # fmt: skip
            return []
        scores = [finalist.score for finalist in compared]
        _log.info("%d networks compared: %s, %.4f to %.4f", len(scores), score.metric, min(scores), max(scores))
        return compared
