"""What every one-shot strategy here shares: a latency table, a budget, decoding within it, and the final selection."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from torch import Tensor

from ..decoding.budget import Budget, BudgetRequest
from ..decoding.checkpoint import CHECKPOINT_SCHEMA
from ..decoding.distribution import ArchitectureDistribution
from ..decoding.knapsack import FrontPoint
from ..decoding.ranking import rank_values
from ..errors import InputError
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..supernet.gated import path_candidates
from ..supernet.space import describe_space
from .applied_table import costs_of_space
from .compatibility import check_lightning
from .finalists import Finalist, FinalSelection, best
from .network_score import STATISTICS_BATCHES
from .strategy_callback import StrategyCallback

check_lightning()
_log = logging.getLogger(__name__)


class LatencyAwareStrategy(OneShotStrategy):
    """A one-shot strategy with a latency table, whose result is decoded within a budget.

    Args:
        latency: Latency table of the target device; `None` for a search for accuracy alone.
        budget: The latency budget, if any.
        finalists: Number of most likely architectures that are compared at the end of the search, each with the
            supernet's weights; the best one is exported. 1 compares none.
        **kwargs: Arguments of the NNI strategy that comes next in the method resolution order.

    Attributes:
        compared: The architectures that were compared at the end of the search, in order of likelihood.

    Raises:
        InputError: An argument is out of range; the message says what is allowed.
    """

    strategy_name: ClassVar[str] = ""

    def __init__(
        self,
        *,
        latency: LatencyTable | None,
        budget: BudgetRequest | None,
        finalists: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(finalists, int) or isinstance(finalists, bool) or finalists < 1:
            raise InputError(f"finalists must be a whole number from 1, got {finalists!r}")
        if budget is not None and latency is None:
            raise InputError(f"{budget} needs latency=, the table of the device it is meant for")
        if latency is not None and latency.unit != "ms":
            raise InputError(
                f"latency= needs a table in ms, got one in {latency.unit}; give it as "
                "penalty={'profiler': LatencyProfiler(space, table), 'baseline': …} instead"
            )
        self.latency = latency
        self.budget_request = budget
        self.compared: list[Finalist] = []
        self._budget: Budget | None = None
        self._num_finalists = finalists
        self._chosen: dict[str, Any] | None = None
        self._candidates: dict[str, tuple[Any, ...]] = {}
        self._costs: SpaceCosts | None = None
        self._description: dict[str, Any] | None = None
        self._selection = FinalSelection()

    @property
    def budget_ms(self) -> float | None:
        """The budget in milliseconds, once the table has been applied to a space; `None` without a budget."""
        if self._budget is not None:
            return self._budget.ms
        return None if self.budget_request is None else self.budget_request.ms

    @property
    def limit_ms(self) -> float | None:
        """The latency that exported networks may not exceed, in milliseconds; `None` where nothing limits them."""
        return None if self._budget is None else self._budget.limit_ms

    def path_probs(self) -> dict[str, Tensor]:
        """Label to path probabilities, shape (num_candidates,), float64; changes nothing."""
        raise NotImplementedError

    def distribution(self) -> ArchitectureDistribution:
        """The present distribution over architectures, with the costs of the search's own table."""
        return ArchitectureDistribution(self._candidates, self.path_probs(), self._costs)

    def apply_table(self, model: ModelSpace) -> None:
        """Look up the latencies of a space's candidates and check the budget, before the model is mutated.

        Raises:
            InputError: No network of the space is within the budget.
            MissingOperatorError: The table lacks operators of the space.
        """
        mutables = model.simplify()
        self._candidates = {str(label): tuple(path_candidates(mutables[label])) for label in sorted(mutables)}
        spec = describe_space(model)
        self._description = None if spec is None else spec.to_dict()
        if self.latency is None:
            return
        self._costs = self._costs_of(self.latency, model)
        if self.budget_request is not None:
            self._budget = self.budget_request.resolve(self._costs)

    def reference_ms(self) -> float:
        """The latency that others are compared with: the budget, else the expected latency before the search.

        Returns:
            Milliseconds; 1 without a table.
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
        """E[latency] in milliseconds under the present probabilities, or `None` without a table."""
        return self.distribution().expected_ms()

    def mean_entropy(self) -> float:
        """Mean entropy of the layers in nats: how undecided the search still is."""
        return self.distribution().mean_entropy()

    def progress(self) -> dict[str, float]:
        """Further numbers for the history of a search, with the same keys after each epoch."""
        return {"latency_weight": 0.0, "temperature": 1.0, "arch_learning_rate": 0.0, "pruned": 0}

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside what Lightning saves; plain data and tensors only."""
        return {"chosen": self._chosen}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `extra_state` gave."""
        self._chosen = state.get("chosen")

    def checkpoint(self) -> dict[str, Any]:
        """What `nni-proxyless decode` reads in a checkpoint."""
        names = {label: [str(candidate) for candidate in of] for label, of in self._candidates.items()}
        return {
            "schema": CHECKPOINT_SCHEMA,
            "space": self._description,
            "alpha": {label: probs.log() for label, probs in self.path_probs().items()},
            "candidates": names,
        }

    def mutate_evaluator(self, evaluator: Any) -> Any:
        """NNI's, and: note the loaders for the final selection, and take part in the fit."""
        self._selection.use_evaluator(evaluator)
        mutated = super().mutate_evaluator(evaluator)
        # First, so that callbacks of the evaluator see the result in the last epoch.
        evaluator.trainer.callbacks.insert(0, StrategyCallback(self))
        return mutated

    def compare_on(self, validation: Any, statistics: Any, statistics_batches: int = STATISTICS_BATCHES) -> None:
        """Set the loaders of the final selection, instead of the evaluator's validation and training loaders.

        Args:
            validation: Loader whose batches finalists are compared on.
            statistics: Loader whose first batches give each finalist batch-norm statistics of its own.
            statistics_batches: Number of these batches.
        """
        self._selection.use(validation, statistics, statistics_batches)

    def finalists(self) -> list[dict[str, Any]]:
        """The architectures to compare at the end: the most likely ones, within the budget where one limits them.

        Returns:
            Label to candidate, for each architecture; empty where none are compared.
        """
        if self._num_finalists == 1:
            return []
        return self.distribution().k_most_likely(self._num_finalists, self.limit_ms)

    def select_finalist(self, trainer: Any) -> None:
        """Compare the finalists with the supernet's weights, and export the best one from then on.

        Nothing is compared twice, also not by a search that was resumed after its end.

        Args:
            trainer: The Lightning trainer of the running fit.
        """
        if self._chosen is not None:
            return
        architectures = self.finalists()
        if not architectures:
            return
        if trainer.is_global_zero:
            if len(architectures) > 1:
                self.compared = self._selection.compare(
                    architectures,
                    self.oneshot_module.training_module,
                    trainer,
                    distribution=self.distribution(),
                    multiply_adds=self._multiply_adds(architectures),
                    weigh_multiply_adds=self.limit_ms is not None,
                    rank=self.rank,
                )
            self._chosen = dict(best(self.compared).choices if self.compared else architectures[0])
        self._chosen = trainer.strategy.broadcast(self._chosen)

    def rank(
        self,
        architectures: Sequence[Mapping[str, Any]],
        scores: Sequence[float],
        log_likelihoods: Sequence[float],
        multiply_adds: Sequence[int] | None,
    ) -> list[float]:
        """The values that finalists are compared by; the highest is the best. See `ranking.rank_values`."""
        return rank_values(architectures, scores, log_likelihoods, multiply_adds)

    def _multiply_adds(self, architectures: Sequence[Mapping[str, Any]]) -> list[int] | None:
        spec = describe_space(self.supernet)
        if spec is None:
            return None
        return [Architecture.of_space(spec, choices).multiply_adds for choices in architectures]

    def most_likely_choices(self) -> dict[str, Any]:
        """The most likely architecture without regard to the budget, as an NNI sample; changes nothing."""
        return self.distribution().most_likely()

    def decoded_choices(self) -> dict[str, Any]:
        """The architecture that the search has come to, as an NNI sample.

        It is the best finalist once finalists have been compared. Until then it is the most likely architecture, within
        the budget where one limits it.
        """
        if self._chosen is not None:
            return dict(self._chosen)
        return self.distribution().most_likely(self.limit_ms)

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[Any]:
        """The best architectures as NNI's frozen model spaces, the best one first.

        The first one is that of `export_architecture`. The others are the finalists in the order of their ranking, or
        without finalists the most likely architectures within the budget.

        Args:
            sort: Has to be true: the architectures are always sorted.
            limit: Number of architectures; `None` for all finalists.
        """
        if not sort:
            _log.warning("list_models always gives the best architectures first, got sort=%s", sort)
        self.oneshot_module.set_model(self.supernet)
        for sample in self.best_choices(limit):
            yield self.model_space.freeze(sample)

    def best_choices(self, limit: int | None = 1) -> list[dict[str, Any]]:
        """The best architectures as NNI samples, the best one first; see `list_models`."""
        first = self.decoded_choices()
        if limit == 1:
            return [first]
        if self.compared:
            ranked = sorted(self.compared, key=lambda finalist: -finalist.ranked_by)
            others = [dict(finalist.choices) for finalist in ranked]
        else:
            others = self.distribution().k_most_likely((limit or self._num_finalists) + 1, self.limit_ms)
        return [first, *(choices for choices in others if choices != first)][: limit or len(others)]

    def export_front(
        self, tables: Mapping[str, LatencyTable] | None = None, *, budget_ms: float | None = None
    ) -> dict[str, list[FrontPoint]]:
        """For each table, and every latency, the most likely architecture within it: one search for all devices.

        Args:
            tables: Name to table. Default: the search's own table, named `latency`.
            budget_ms: Largest latency of the fronts, in milliseconds.

        Returns:
            Name to points by rising latency and likelihood.

        Raises:
            InputError: There is no table at all, or no architecture is within the budget.
            SpaceError: The space does not describe its operators.
            MissingOperatorError: A table lacks operators of the space.
        """
        if tables is None:
            if self.latency is None:
                raise InputError("export_front needs tables=, or a search with latency=")
            tables = {"latency": self.latency}
        distribution = self.distribution()
        return {
            name: distribution.with_costs(self._costs_of(table, self.supernet)).front(budget_ms)
            for name, table in tables.items()
        }

    def export_architecture(
        self, *, budget_ms: float | None = None, table: LatencyTable | None = None, **details: Any
    ) -> Architecture:
        """The architecture that the search has come to, with its predicted latency if there is a table.

        Args:
            budget_ms: Another budget than the search's own, in milliseconds: the most likely architecture within it.
            table: Another device's table instead of the search's own.
            **details: Further fields of `Architecture`: `target`, `metrics`, `seed` and so on.

        Raises:
            InputError: There is a budget but no table, or no architecture is within the budget.
        """
        own = budget_ms is None and table is None
        distribution = self.distribution()
        if table is not None:
            distribution = distribution.with_costs(self._costs_of(table, self.supernet))
        if budget_ms is not None and distribution.costs is None:
            raise InputError(f"budget_ms={budget_ms} needs a search with latency=, the table of the device")
        choices = self.decoded_choices() if own else distribution.most_likely(budget_ms)
        return self._describe(choices, distribution.costs, self.budget_ms if own else budget_ms, details)

    def _describe(
        self, choices: Mapping[str, Any], costs: SpaceCosts | None, budget_ms: float | None, details: Mapping[str, Any]
    ) -> Architecture:
        known: dict[str, Any] = {
            "strategy": self.strategy_name,
            "budget_ms": budget_ms,
            "predicted_latency_ms": None if costs is None else costs.of(choices),
            "versions": {name: version(name) for name in ("nni-proxyless", "nni", "torch", "pytorch-lightning")},
        }
        spec = describe_space(self.supernet)
        if spec is not None:
            return Architecture.of_space(spec, choices, **{**known, **details})
        candidates = {label: list(of) for label, of in self._candidates.items()}
        digest = hashlib.sha256(json.dumps(candidates, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return Architecture(type(self.supernet).__qualname__, digest, dict(choices), **{**known, **details})
