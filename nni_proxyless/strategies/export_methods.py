"""Methods that return the result of a search: the exported architecture, NNI's model spaces, and fronts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from nni.nas.nn.pytorch import ModelSpace
from torch import Tensor

from ..decoding.budget import BudgetRequest
from ..decoding.constraint import Constraint, limits_and_values
from ..decoding.distribution import ArchitectureDistribution
from ..decoding.knapsack import FrontPoint
from ..errors import InputError
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..supernet.frozen_state import frozen_state
from .exported import exported_architecture
from .finalist import Finalist
from .search_warnings import SearchWarnings

_log = logging.getLogger(__name__)


class ExportMethods:
    """Methods of `LatencyAwareStrategy` that only read what the search has found."""

    latency: LatencyTable | None
    compared: list[Finalist]
    warnings: SearchWarnings
    strategy_name: ClassVar[str]
    _candidates: dict[str, tuple[Any, ...]]
    _chosen: dict[str, Any] | None
    _num_finalists: int
    supernet: Any
    model_space: ModelSpace
    limit_ms: Any
    constraints: tuple[Constraint, ...]
    budget_ms: Any

    def distribution(self) -> ArchitectureDistribution:
        raise NotImplementedError

    def _costs_of(self, table: LatencyTable, model: ModelSpace) -> SpaceCosts:
        raise NotImplementedError

    def quantities(self, choices: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Return limit and value of each budget of `constraints`, for an architecture as an NNI sample."""
        return limits_and_values(self.constraints, choices)

    def _temperature(self) -> float:
        """Return the temperature at which the path probabilities are trained now."""
        return 1.0

    def _progress_of_constraints(self) -> dict[str, float]:
        """Return the expected value of each budgeted quantity, and that of the decoded architecture.

        Like the expected latency, the expected values are those at the current temperature.
        """
        if not self.constraints:
            return {}
        return self.distribution().at_temperature(self._temperature()).progress(self.decoded_choices())

    def most_likely_choices(self) -> dict[str, Any]:
        """Return the most likely architecture, regardless of the budget, as an NNI sample."""
        return self.distribution().most_likely()

    def decoded_choices(self) -> dict[str, Any]:
        """Return the architecture that the search has found so far, as an NNI sample.

        After the finalists have been compared, it is the best finalist. Before that, it is the most likely
        architecture, within `limit_ms` if it is set.
        """
        if self._chosen is not None:
            return dict(self._chosen)
        return self.distribution().most_likely(self.limit_ms)

    def list_models(self, sort: bool = True, limit: int | None = 1) -> Iterator[Any]:
        """Yield the best architectures as NNI's frozen model spaces, the best one first.

        The first one is the result of `export_architecture`. The others are the other finalists, ordered by their
        ranking. Without finalists, they are the most likely architectures within `limit_ms`.

        Args:
            sort: Must be true, because the architectures are always sorted. If it is false, a warning is logged.
            limit: Largest number of architectures; `None` for all finalists.
        """
        if not sort:
            _log.warning("list_models always gives the best architectures first, got sort=%s", sort)
        # Not NNI's `set_model` before: it would give ENAS a new controller that has learnt nothing.
        for sample in self.best_choices(limit):
            yield self.model_space.freeze(sample)

    def best_choices(self, limit: int | None = 1) -> list[dict[str, Any]]:
        """Return the best architectures as NNI samples, the best one first; see `list_models`."""
        first = self.decoded_choices()
        if limit == 1:
            return [first]
        if self.compared:
            ranked = sorted(self.compared, key=lambda finalist: finalist.standing, reverse=True)
            others = [dict(finalist.choices) for finalist in ranked]
        else:
            others = self._uncompared((limit or self._num_finalists) + 1)
        most = limit or (len(others) if self.compared else max(self._num_finalists, 1))
        return [first, *(choices for choices in others if choices != first)][:most]

    def _uncompared(self, count: int) -> list[dict[str, Any]]:
        """Return up to `count` of the best architectures if none have been compared."""
        return self.distribution().k_most_likely(count, self.limit_ms)

    def export_state_dict(self, sample: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
        """Return the supernet's weights of one architecture, which `space.freeze(sample)` loads strictly.

        They are good initial weights of a training. The batch-norm statistics mix those of all paths, so re-estimate
        them before you evaluate the network without training it.

        Args:
            sample: Architecture as an NNI sample. Default: the one that the search has found so far.

        Raises:
            SpaceError: A module of the supernet is not a LayerChoice, InputChoice or Repeat.
        """
        return frozen_state(self.supernet, self.decoded_choices() if sample is None else sample)

    def export_front(
        self, tables: Mapping[str, LatencyTable] | None = None, *, budget_ms: float | None = None
    ) -> dict[str, list[FrontPoint]]:
        """Compute for each latency table the most likely architecture within every latency.

        So a single search yields architectures for many devices.

        Args:
            tables: Latency tables by name. Default: the search's own table, named `latency`.
            budget_ms: Largest latency of the fronts, in milliseconds.

        Returns:
            Points of each table's front by name of the table, in order of rising latency and likelihood.

        Raises:
            InputError: There is no table, or no architecture is within the budget.
            SpaceError: The space does not describe its operators.
            MissingOperatorError: A table lacks operators of the space.
        """
        if tables is None:
            if self.latency is None:
                raise InputError("export_front needs tables=, or a search with latency=")
            tables = {"latency": self.latency}
        request = BudgetRequest.of(budget_ms, None, hard=True)
        budget_ms = None if request is None else request.ms
        distribution = self.distribution()
        return {
            name: distribution.with_costs(self._costs_of(table, self.supernet)).front(budget_ms)
            for name, table in tables.items()
        }

    def export_architecture(
        self, *, budget_ms: float | None = None, table: LatencyTable | None = None, **details: Any
    ) -> Architecture:
        """Return the architecture that the search has found so far, with its predicted latency if there is a table.

        With `budget_ms` or `table`, it is instead the most likely architecture, within `budget_ms` if that is given.

        Args:
            budget_ms: Latency budget in milliseconds that replaces the search's own budget.
            table: Latency table of another device that replaces the search's own table.
            **details: Further fields of `Architecture`, such as `target`, `metrics` and `seed`.

        Raises:
            InputError: There is a budget but no table, it is not a number above 0, or no architecture is within it.
        """
        request = BudgetRequest.of(budget_ms, None, hard=True)
        own = request is None and table is None
        distribution = self.distribution()
        if table is not None:
            distribution = distribution.with_costs(self._costs_of(table, self.supernet))
        if budget_ms is not None and distribution.costs is None:
            raise InputError(f"budget_ms={budget_ms} needs a search with latency=, the table of the device")
        budget_ms = None if request is None else request.ms
        choices = self.decoded_choices() if own else distribution.most_likely(budget_ms)
        known: dict[str, Any] = {
            "strategy": self.strategy_name,
            "budget_ms": self.budget_ms if own else budget_ms,
            "predicted_latency_ms": None if distribution.costs is None else distribution.costs.of(choices),
            "warnings": tuple(self.warnings),
            "budgets": self.quantities(choices),
        }
        return exported_architecture(self.supernet, self._candidates, choices, **{**known, **details})
