"""What a one-shot strategy needs to know of latency: the table applied to its space, the budget, decoding within it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from torch import Tensor

from ..decoding.checkpoint import CHECKPOINT_SCHEMA
from ..decoding.distribution import log_likelihoods, most_likely
from ..decoding.knapsack import FrontPoint, front, likeliest_within, most_likely_within
from ..decoding.ranking import rank_values
from ..errors import InputError, LatencyTableError
from ..latency.costs import SpaceCosts
from ..latency.table import LatencyTable
from ..network.architecture import Architecture
from ..supernet.gated import path_candidates
from ..supernet.gates import entropy
from ..supernet.space import describe_space, require_description
from .compatibility import check_lightning

check_lightning()


class LatencyAwareStrategy(OneShotStrategy):
    """A one-shot strategy with a latency table, whose result is decoded within a budget. Others derive from it.

    Args:
        latency: Table of the target device; none for a search for accuracy alone.
        budget_ms: A latency in milliseconds.
        budget_fraction: The same as a part of the largest network's latency, above 0 to 1.
        keeps_budget: Whether what is exported has to be within the budget, or the budget is a mere reference.
        finalists: How many of the likeliest architectures a search compares at its end, each with the supernet's
            weights; the best is what it exports (`rank`). 1 compares none.
        **kwargs: Of the NNI strategy that comes next in the order of classes.

    Raises:
        InputError: An argument is out of range; the message says what is allowed.
    """

    strategy_name: ClassVar[str] = ""

    def __init__(
        self,
        *,
        latency: LatencyTable | None,
        budget_ms: float | None,
        budget_fraction: float | None,
        keeps_budget: bool,
        finalists: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(finalists, int) or isinstance(finalists, bool) or finalists < 1:
            raise InputError(f"finalists must be a whole number from 1, got {finalists!r}")
        if budget_ms is not None and not budget_ms > 0.0:
            raise InputError(f"budget_ms must be greater than 0, got {budget_ms!r}")
        if budget_fraction is not None and not 0.0 < budget_fraction <= 1.0:
            raise InputError(f"budget_fraction must be above 0 and at most 1, got {budget_fraction!r}")
        if budget_ms is not None and budget_fraction is not None:
            raise InputError(f"give budget_ms={budget_ms} or budget_fraction={budget_fraction}, not both")
        has_budget = budget_ms is not None or budget_fraction is not None
        if has_budget and latency is None:
            given = f"budget_fraction={budget_fraction}" if budget_ms is None else f"budget_ms={budget_ms}"
            raise InputError(f"{given} needs latency=, the table of the device it is meant for")
        if latency is not None and latency.unit != "ms":
            raise InputError(
                f"latency= needs a table in ms, got one in {latency.unit}; give it as "
                "penalty={'profiler': LatencyProfiler(space, table), 'baseline': …} instead"
            )
        self.latency = latency
        self.budget_ms = budget_ms
        self.budget_fraction = budget_fraction
        self._keeps_budget = keeps_budget and has_budget
        self._num_finalists = finalists
        self._chosen: dict[str, Any] | None = None
        self._candidates: dict[str, tuple[Any, ...]] = {}
        self._costs: SpaceCosts | None = None
        self._description: dict[str, Any] | None = None

    def path_probs(self) -> dict[str, Tensor]:
        """Label to path probabilities, shape (num_candidates,), float64; changes nothing."""
        raise NotImplementedError

    def apply_table(self, model: ModelSpace) -> None:
        """Look up the latencies of a space's candidates, and check the budget; before the model is mutated.

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
        if self.budget_fraction is not None:
            self.budget_ms = self.budget_fraction * self._costs.largest
        if self._keeps_budget and not self.budget_ms >= self._costs.smallest:  # type: ignore[operator]
            raise InputError(
                f"no network of this space takes {self.budget_ms:.4g} ms or less; the fastest takes "
                f"{self._costs.smallest:.4g} ms, the slowest {self._costs.largest:.4g} ms"
            )

    def reference_ms(self) -> float:
        """The latency that others are compared with: the budget, else the expected one before the search; 1 without."""
        if self.budget_ms is not None:
            return self.budget_ms
        if self._costs is None:
            return 1.0
        uniform = {label: torch.full((len(of),), 1.0 / len(of)) for label, of in self._candidates.items()}
        return float(self._costs.expected(uniform))

    def _costs_of(self, table: LatencyTable, model: ModelSpace) -> SpaceCosts:
        """The table applied to a space: by its operators, or layer by layer where it was fitted to just this space."""
        if describe_space(model) is not None or not table.fitted_to_layers:
            return table.costs(require_description(model, "latency="))
        costs = table.own_costs()
        candidates = {label: [str(c) for c in of] for label, of in self._candidates.items()}
        for label, names in candidates.items():
            known = list(costs.candidates.get(label, ()))
            if sorted(known) != sorted(names):
                raise LatencyTableError(
                    f"the table is fitted to other layers: of '{label}' it knows {known}, the space has {names}"
                )
        order = {label: [costs.candidates[label].index(name) for name in names] for label, names in candidates.items()}
        return SpaceCosts(
            costs.fixed,
            dict(self._candidates),
            {label: tuple(costs.layers[label][i] for i in indices) for label, indices in order.items()},
        )

    def expected_latency_ms(self) -> float | None:
        """E[latency] in milliseconds under the present probabilities, if there is a table."""
        return None if self._costs is None else float(self._costs.expected(self.path_probs()))

    def mean_entropy(self) -> float:
        """Mean entropy of the layers in nats: how undecided the search still is."""
        return float(torch.stack([entropy(probs) for probs in self.path_probs().values()]).mean())

    def progress(self) -> dict[str, float]:
        """Further numbers for the history of a search, the same keys after each epoch."""
        return {"latency_weight": 0.0, "temperature": 1.0, "arch_learning_rate": 0.0, "pruned": 0}

    def extra_state(self) -> dict[str, Any]:
        """What a checkpoint has to hold beside what Lightning knows of; plain data and tensors only."""
        return {"chosen": self._chosen}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `extra_state` gave."""
        self._chosen = state.get("chosen")

    def checkpoint(self) -> dict[str, Any]:
        """What `nni-proxyless decode` reads of a checkpoint."""
        names = {label: [str(candidate) for candidate in of] for label, of in self._candidates.items()}
        return {
            "schema": CHECKPOINT_SCHEMA,
            "space": self._description,
            "alpha": {label: probs.log() for label, probs in self.path_probs().items()},
            "candidates": names,
        }

    def finalists(self) -> list[dict[str, Any]]:
        """The likeliest architectures, within the budget where there is one, to compare with the supernet's weights.

        None where there is no choice to be made.
        """
        if self._num_finalists == 1:
            return []
        probs = self.path_probs()
        if self._keeps_budget:
            assert self._costs is not None
            assert self.budget_ms is not None
            return likeliest_within(probs, self._costs, self.budget_ms, self._num_finalists)
        free = {label: (0.0,) * len(of) for label, of in self._candidates.items()}
        return likeliest_within(probs, SpaceCosts(1.0, self._candidates, free), 1.0, self._num_finalists)

    def log_likelihoods(self, architectures: Sequence[Mapping[str, Any]]) -> list[float]:
        """Log of each architecture's probability, in nats."""
        return log_likelihoods(self.path_probs(), self._candidates, architectures)

    def rank(self, finalists: Sequence[Mapping[str, Any]], accuracies: Sequence[float]) -> list[float]:
        """What the finalists are compared by, from their accuracies with the supernet's weights: the highest is best.

        Single ones of these accuracies are noisy; they are smoothed over all finalists, and what they leave open is
        left to the likelihoods and, where a budget is kept, to multiply-adds (`ranking.rank_values`).
        """
        return rank_values(finalists, accuracies, self.log_likelihoods(finalists), self._multiply_adds(finalists))

    def _multiply_adds(self, architectures: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """Of each architecture; none where no budget keeps their latencies together, or the space is not described."""
        spec = describe_space(self.supernet)
        if not self._keeps_budget or spec is None:
            return None
        return [Architecture.of_space(spec, choices).multiply_adds for choices in architectures]

    def choose(self, choices: Mapping[str, Any]) -> None:
        """Told which of the finalists is the best; it is what is decoded from then on."""
        self._chosen = dict(choices)

    def most_likely_choices(self) -> dict[str, Any]:
        """Label to the most likely candidate, as an NNI sample; changes nothing."""
        return most_likely(self.path_probs(), self._candidates)

    def decoded_choices(self) -> dict[str, Any]:
        """What the search has come to: the most likely architecture, within the budget where there is one.

        Where finalists have been compared it is the best of them.
        """
        if self._chosen is not None:
            return dict(self._chosen)
        if not self._keeps_budget:
            return self.most_likely_choices()
        assert self._costs is not None
        assert self.budget_ms is not None
        return most_likely_within(self.path_probs(), self._costs, self.budget_ms)

    def export_front(
        self, tables: Mapping[str, LatencyTable] | None = None, *, budget_ms: float | None = None
    ) -> dict[str, list[FrontPoint]]:
        """For each table, and every latency, the most likely architecture within it: one search, all devices.

        Args:
            tables: Name to table; the search's own, as `latency`, if not given.
            budget_ms: Leave out what is slower, in milliseconds.

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
        probs = self.path_probs()
        return {
            name: front(probs, self._costs_of(table, self.supernet), budget_ms=budget_ms)
            for name, table in tables.items()
        }

    def export_architecture(
        self, *, budget_ms: float | None = None, table: LatencyTable | None = None, **details: Any
    ) -> Architecture:
        """The most likely architecture, with its predicted latency if there is a table.

        Args:
            budget_ms: The most likely one of those within this latency by the table, in milliseconds; the search's own
                budget if it has one.
            table: Another device's table instead of the search's own.
            **details: Further fields of `Architecture`: `target`, `metrics`, `seed` and so on.

        Raises:
            InputError: There is a budget but no table, or no architecture is that fast.
        """
        costs = self._costs if table is None else self._costs_of(table, self.supernet)
        if budget_ms is None and table is None:
            choices = self.decoded_choices()
        elif budget_ms is None:
            choices = self.most_likely_choices()
        elif costs is None:
            raise InputError(f"budget_ms={budget_ms} needs a search with latency=, the table of the device")
        else:
            choices = most_likely_within(self.path_probs(), costs, budget_ms)
        return self.describe(
            choices, costs, self.budget_ms if budget_ms is None and table is None else budget_ms, details
        )

    def describe(
        self, choices: Mapping[str, Any], costs: SpaceCosts | None, budget_ms: float | None, details: Mapping[str, Any]
    ) -> Architecture:
        """An architecture file's content for some choices."""
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


def checked_candidates(known: Sequence[Any], given: Mapping[Any, float]) -> list[float]:
    """Probabilities in the order of a label's candidates; 0 for what is not mentioned."""
    by_name = {str(candidate): p for candidate, p in given.items()}
    return [float(by_name.get(str(candidate), 0.0)) for candidate in known]
