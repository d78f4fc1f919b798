"""Base of all one-shot strategies here: latency table, budget, decoding within the budget, and final selection."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from pytorch_lightning.utilities.exceptions import SIGTERMException
from torch import Tensor

from ..decoding.budget import Budget
from ..decoding.budgets import LATENCY, constraints_of
from ..decoding.checkpoint import CHECKPOINT_SCHEMA
from ..decoding.constraint import Constraint
from ..decoding.distribution import ArchitectureDistribution
from ..decoding.ranking import rank_values
from ..errors import InputError, RunError
from ..latency.costs import SpaceCosts
from ..latency.judgement import warnings_of
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..network.operators import total_activations, total_multiply_adds
from ..signals import interruptions_raised
from ..supernet.candidates import labels_of, path_candidates, searched
from ..supernet.constraints import Constraints
from ..supernet.space import describe_space
from ..supernet.unsupported import check_space
from .applied_table import costs_of_space, counts_of_space
from .compatibility import check_lightning
from .early_budgets import refuse_impossible
from .evaluator_checks import check_evaluator, check_steps, keep_datamodule
from .export_methods import ExportMethods
from .finalist import Finalist, best
from .finalists import FinalSelection, with_doubts
from .network_score import STATISTICS_BATCHES
from .search_warnings import (
    SearchWarnings,
    bounded_memory,
    budget_without_effect,
    constraints_without_effect,
    doubtful_latencies,
    equal_scores,
    unwatched_monitors,
)
from .stated_budgets import StatedBudgets
from .strategy_callback import StrategyCallback

check_lightning()


class LatencyAwareStrategy(ExportMethods, OneShotStrategy):
    """One-shot strategy with a latency table, whose result is decoded within a budget.

    Args:
        stated: Latency tables and budgets.
        finalists: Number of most likely architectures that are compared at the end of the search, each with the
            supernet's weights; the best one is exported. 1 compares none.
        finalists_required: Whether an error of the comparison ends the search, instead of a warning.
        **kwargs: Arguments of the NNI strategy that comes next in the method resolution order.

    Attributes:
        stated: Latency tables and budgets as they were given.
        constraints: Budgets other than the latency of the own target, once the space is known.
        compared: Architectures that were compared at the end of the search, the most likely one first.
        warnings: Warnings of the search about its own result, in the order in which they arose.
        takes_warnings_over: Whether the warnings in a checkpoint are this search's own. Those of a shared warm-up are
            not, because another search has trained it.

    Raises:
        InputError: An argument is invalid. The message says what is allowed.
    """

    strategy_name: ClassVar[str] = ""

    def __init__(
        self,
        *,
        stated: StatedBudgets,
        finalists: int = 1,
        finalists_required: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(finalists, int) or isinstance(finalists, bool) or finalists < 1:
            raise InputError(f"finalists must be a whole number from 1, got {finalists!r}")
        refuse_impossible(stated)
        self.stated = stated
        self.latency = None if stated.target is None else stated.tables[stated.target]
        self.budget_request = stated.request
        self.constraints: tuple[Constraint, ...] = ()
        self.compared: list[Finalist] = []
        self.warnings = SearchWarnings()
        self.takes_warnings_over = True
        self._budget: Budget | None = None
        self._num_finalists = finalists
        self._chosen: dict[str, Any] | None = None
        self._candidates: dict[str, tuple[Any, ...]] = {}
        self._constraints = Constraints()
        self._costs: SpaceCosts | None = None
        self._description: dict[str, Any] | None = None
        self._selection = FinalSelection(finalists_required)

    @property
    def budget_ms(self) -> float | None:
        """Budget in milliseconds. `None` without a budget, or while a relative budget has not been resolved."""
        if self._budget is not None:
            return self._budget.ms
        return None if self.budget_request is None else self.budget_request.ms

    @property
    def limit_ms(self) -> float | None:
        """Latency that exported networks must not exceed, in milliseconds; `None` if there is no limit."""
        return None if self._budget is None else self._budget.limit_ms

    def path_probs(self) -> dict[str, Tensor]:
        """Return the path probabilities of each label, shape (num_candidates,), float64."""
        raise NotImplementedError

    def distribution(self) -> ArchitectureDistribution:
        """Return the current distribution over architectures, with the costs of the search's own table."""
        allowed = self._constraints.allow if self._constraints else None
        known = (self._candidates, self.path_probs(), self._costs, allowed, self.constraints)
        return ArchitectureDistribution(*known, self.stated.target or LATENCY)

    def apply_table(self, model: ModelSpace) -> None:
        """Look up the latencies of a space's candidates and check the budget. The model must not be mutated yet.

        Raises:
            InputError: No network of the space is within the budget.
            MissingOperatorError: The table lacks operators of the space.
        """
        mutables = labels_of(model)
        self._candidates = {str(label): tuple(path_candidates(mutables[label])) for label in sorted(searched(mutables))}
        self._constraints = Constraints.in_space(mutables)
        check_space(model, self._candidates)
        spec = describe_space(model)
        self._description = None if spec is None else spec.to_dict()
        latencies = {name: self._costs_of(table, model) for name, table in self.stated.tables.items()}
        if self.stated.target is not None:
            self._costs = latencies[self.stated.target]
        if self._costs is not None and self.budget_request is not None:
            self._budget = self.budget_request.resolve(self._costs)
            if self.budget_request.ms is not None:
                self._warn(budget_without_effect(self._budget.ms, self._costs.largest))
        if self.stated.limits:
            counts = counts_of_space(self.stated.counts, self._candidates)
            self.constraints = constraints_of(self.stated.limits, latencies, spec, counts)
            self._check_constraints()
            self._warn(bounded_memory(self.stated, spec))

    def _check_constraints(self) -> None:
        """Check that some network is within all budgets, and warn about those that change nothing."""
        uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in self._candidates.items()}
        known = (self._candidates, uniform, self._costs, None, self.constraints, self.stated.target or LATENCY)
        ArchitectureDistribution(*known).most_likely(self.limit_ms)
        for text in constraints_without_effect(self.constraints):
            self._warn(text)

    def _warn(self, text: str | None) -> None:
        if text is not None:
            self.warnings.add(text)

    def reference_ms(self) -> float:
        """Return the reference latency of the objective: the budget, or else the expected latency before the search.

        Returns:
            Reference latency in milliseconds; 1 without a table.
        """
        if self._budget is not None:
            return self._budget.ms
        if self._costs is None:
            return 1.0
        uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in self._candidates.items()}
        return float(self._costs.expected(uniform))

    def _costs_of(self, table: LatencyTable, model: ModelSpace) -> SpaceCosts:
        return costs_of_space(table, model, self._candidates)

    def expected_latency_ms(self) -> float | None:
        """Compute E[latency] under the current probabilities in milliseconds; `None` without a table."""
        return self.distribution().expected_ms()

    def mean_entropy(self) -> float:
        """Compute the mean entropy of the layers in nats, which shows how undecided the search still is."""
        return self.distribution().mean_entropy()

    def progress(self) -> dict[str, float]:
        """Return further columns of the search's history. The keys are the same after each epoch."""
        fixed = {"latency_weight": 0.0, "temperature": 1.0, "arch_learning_rate": 0.0, "pruned": 0}
        return {**fixed, **self._progress_of_constraints()}

    def extra_state(self) -> dict[str, Any]:
        """Return the state that Lightning does not save: plain data and tensors only."""
        compared = [asdict(finalist) for finalist in self.compared]
        return {"chosen": self._chosen, "compared": compared, "warnings": list(self.warnings)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `extra_state` returned."""
        self._chosen = state.get("chosen")
        self.compared = [Finalist(**finalist) for finalist in state.get("compared", [])]
        if self.takes_warnings_over:
            self.warnings.extend(text for text in state.get("warnings", []) if text not in self.warnings)

    def checkpoint(self) -> dict[str, Any]:
        """Return the part of a checkpoint that `nni-proxyless decode` reads."""
        names = {label: [str(candidate) for candidate in of] for label, of in self._candidates.items()}
        return {
            "schema": CHECKPOINT_SCHEMA,
            "space": self._description,
            "alpha": {label: probs.log() for label, probs in self.path_probs().items()},
            "candidates": names,
        }

    def mutate_evaluator(self, evaluator: Any) -> Any:
        """Mutate the evaluator as NNI does, keep its loaders for the final selection, and add a callback to the fit."""
        if isinstance(evaluator, Lightning):  # NNI refuses all others
            check_evaluator(evaluator)
            if evaluator.datamodule is not None:
                keep_datamodule(evaluator.datamodule)
            self._check_ranks(evaluator.trainer)
            self._selection.use_evaluator(evaluator)
        mutated = super().mutate_evaluator(evaluator)
        check_steps(mutated)
        # It comes first, so that the evaluator's callbacks see the result, and replaces that of an earlier search.
        others = [c for c in evaluator.trainer.callbacks if not isinstance(c, StrategyCallback)]
        self._callback = StrategyCallback(self)
        evaluator.trainer.callbacks[:] = [self._callback, *others]
        return mutated

    def _check_ranks(self, trainer: Any) -> None:
        """Check whether the strategy can search on the trainer's devices."""
        if trainer.world_size > 1:
            raise InputError(
                f"{type(self).__name__} searches on one device, got a Trainer with {trainer.world_size}; set "
                "devices=1, or use ProxylessNAS"
            )

    def check_epoch(self, trainer: Any, *, last: bool) -> None:
        """Check after an epoch whether something could be learnt, and add problems to `warnings`.

        Args:
            trainer: Lightning trainer of the running fit.
            last: Whether the search ends with this epoch.

        Raises:
            RunError: The search has ended, and nothing can have been learnt.
        """
        if last and trainer.global_step == 0:
            raise RunError("the search has ended without a training step; check that the loaders have batches")

    def check_callbacks(self, trainer: Any) -> None:
        """Check after the first epoch, and at the end, whether callbacks wait for a metric that is never logged."""
        self._warn(unwatched_monitors(trainer.callbacks, trainer.callback_metrics))

    def _run(self) -> None:
        for text in () if self.latency is None else warnings_of(self.latency):
            self._warn(text)
        try:
            with interruptions_raised():
                super()._run()
        except SIGTERMException as reason:  # its own exit code would be 0, as if the search had finished
            raise SystemExit(128 + signal.SIGTERM) from reason
        if not self._callback.has_state:
            raise RunError("the search has ended before its first epoch; check max_epochs and the loaders' batches")

    def compare_on(self, validation: Any, statistics: Any, statistics_batches: int = STATISTICS_BATCHES) -> None:
        """Set the loaders of the final selection, which are otherwise the evaluator's validation and training loaders.

        Args:
            validation: Loader of the data on which finalists are compared.
            statistics: Loader whose first batches are used to estimate the batch-norm statistics of each finalist.
            statistics_batches: Number of batches for these statistics.
        """
        self._selection.use(validation, statistics, statistics_batches)

    def finalists(self) -> list[dict[str, Any]]:
        """Return the architectures to compare at the end: the most likely ones, within `limit_ms` if it is set.

        Returns:
            Architectures as mappings from labels to candidates. The list is empty if none are to be compared.
        """
        return [] if self._num_finalists == 1 else self.distribution().k_most_likely(self._num_finalists, self.limit_ms)

    def select_finalist(self, trainer: Any) -> None:
        """Compare the finalists with the supernet's weights. From then on, the best one is exported.

        Finalists are compared only once, even if a search is resumed after its end.

        Args:
            trainer: Lightning trainer of the running fit.
        """
        architectures = self.finalists() if self._chosen is None else []
        if not architectures:
            return
        failure: Exception | None = None
        if trainer.is_global_zero:
            try:
                if len(architectures) > 1:
                    self._compare(architectures, trainer)
            except Exception as reason:  # the other ranks must not wait for a result that never comes
                failure = reason
            self._chosen = dict(best(self.compared).choices if self.compared else architectures[0])
        self._chosen, told = trainer.strategy.broadcast((self._chosen, None if failure is None else str(failure)))
        if failure is not None:
            raise failure
        if told is not None:
            raise RunError(f"the comparison of finalists failed on rank 0: {told}")

    def _compare(self, architectures: Sequence[Mapping[str, Any]], trainer: Any) -> None:
        self.compared = self._selection.compare(
            architectures,
            self.oneshot_module.training_module,
            trainer,
            rank=self.rank,
            distribution=self.distribution(),
            multiply_adds=self._sizes(architectures)[0],
        )
        self._warn(equal_scores([finalist.score for finalist in self.compared]))
        self.compared = with_doubts(self.compared, self.latency, self.budget_ms)
        if self.compared and self.budget_ms is not None:
            above = [finalist.above_budget for finalist in self.compared]
            self._warn(doubtful_latencies(above, self.compared.index(best(self.compared)), self.budget_ms))

    def rank(self, architectures: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> list[float]:
        """Compute the values by which finalists are compared; the highest is the best. See `ranking.rank_values`.

        Multiply-adds and activations only count if a budget keeps the latencies of the finalists close together.

        Args:
            architectures: Finalists as mappings from labels to candidates.
            scores: Metric of each finalist with the supernet's weights; the higher the better.
        """
        sizes = (None, None) if self.limit_ms is None else self._sizes(architectures)
        return rank_values(architectures, scores, self.distribution().log_likelihoods(architectures), *sizes)

    def _sizes(self, architectures: Sequence[Mapping[str, Any]]) -> tuple[list[int] | None, list[int] | None]:
        """Multiply-adds and activations of each architecture; `None` if the space does not describe its operators."""
        if (spec := describe_space(self.supernet)) is None:
            return None, None
        networks = [Architecture.of_space(spec, choices).operators() for choices in architectures]
        return [*map(total_multiply_adds, networks)], [*map(total_activations, networks)]
