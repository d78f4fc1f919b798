"""Creation of the strategy that a recipe names: ProxylessNAS, one of NNI's with latency, or a user's own class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import nni.nas.strategy  # noqa: F401  imported first: otherwise NNI's import cycle leaves stubs for DARTS and ENAS
import torch
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.strategy import DARTS
from torch import Tensor

from ..errors import RecipeError
from ..latency.table import LatencyTable
from ..network.space_spec import SpaceSpec
from ..strategies.arch_settings import ArchSettings, default_arch_rate
from ..strategies.latency_aware import LatencyAwareStrategy
from ..strategies.nni_strategies import (
    Differentiable,
    LatencyDARTS,
    LatencyENAS,
    LatencyGumbelDARTS,
    LatencyNniProxyless,
    NniStrategy,
    RandomSearch,
)
from ..strategies.proxyless import ProxylessNAS
from .recipe import Recipe

NNI_STRATEGIES: dict[str, type[NniStrategy]] = {
    "darts": LatencyDARTS,
    "gumbel_darts": LatencyGumbelDARTS,
    "enas": LatencyENAS,
    "random": RandomSearch,
    "nni_proxyless_builtin": LatencyNniProxyless,
}


class Adopted(NniStrategy):
    """Base for any other one-shot strategy. The path probabilities come from the `export_probs` of its module."""

    def path_probs(self) -> dict[str, Tensor]:
        """Return the normalised path probabilities that the module exports for each label.

        If the module exports only one candidate of a label, that candidate gets nearly all of the probability.

        Returns:
            Path probabilities by label, shape (num_candidates,) each, float64.
        """
        module = self.oneshot_module
        exported = module.export_probs()
        probs = {}
        for label, candidates in self._candidates.items():
            given = exported.get(label)
            if isinstance(given, dict) and given:
                values = torch.tensor(_in_order(candidates, given), dtype=torch.float64)
            else:  # the module exports no distribution, but only one candidate
                # `module.export` was replaced by the decoding of `NniStrategy`, so the class's own method is called.
                chosen = type(module).export(module)[label]
                values = torch.tensor([float(candidate == chosen) for candidate in candidates], dtype=torch.float64)
            # No probability is 0, because the strategy's preferred candidates may exceed the budget.
            probs[label] = (values + 1e-9) / (values + 1e-9).sum()
        return probs


def make_strategy(
    recipe: Recipe,
    table: LatencyTable,
    spec: SpaceSpec,
    steps_per_epoch: int,
    other_tables: Mapping[str, LatencyTable] | None = None,
) -> LatencyAwareStrategy:
    """Create the NNI strategy that a recipe names.

    Args:
        recipe: Recipe of the search.
        table: Latency table of the search's own target.
        spec: Description of the space.
        steps_per_epoch: Number of weight steps in an epoch.
        other_tables: Latency tables of further targets that have a budget, by name.

    Raises:
        RecipeError: There is no such strategy, or the strategy does not accept the recipe's `strategy_args`.
    """
    known: dict[str, type[Any]] = {"proxyless": ProxylessNAS, **NNI_STRATEGIES}
    kind = known.get(recipe.strategy) or load_strategy(recipe.strategy)
    budget: dict[str, Any] = {"budget_ms": recipe.budget_ms, "budget_fraction": recipe.budget_fraction}
    latency: Any = table
    if recipe.budgets:
        latency = {recipe.target: table, **(other_tables or {})}
        budget |= {"budgets": recipe.budgets, "target": recipe.target}
    if issubclass(kind, ProxylessNAS):  # a user's subclass takes the same keys
        # Settings that are None are left to the class, whose defaults may differ.
        arguments = {key: value for key in ArchSettings.model_fields if (value := getattr(recipe, key)) is not None}
        arguments["arch_betas"] = (arguments.pop("arch_beta1"), arguments.pop("arch_beta2"))
        arguments |= {"gradient_clip_val": recipe.gradient_clip_val, "seed": recipe.seed}
        if recipe.channels_last is False:  # a user's subclass need not know this argument
            arguments["channels_last"] = False
        return _make(kind, recipe, {"latency": latency, **budget, **arguments})
    arguments = {"objective": recipe.objective, "latency_weight": recipe.latency_weight}
    if recipe.finalists is not None:
        arguments["finalists"] = recipe.finalists
    if issubclass(kind, Differentiable):
        steps = steps_per_epoch * (recipe.epochs - recipe.warmup_epochs)
        candidates = sum(len(layer.names) for layer in spec.layers) / len(spec.layers)
        arguments["arc_learning_rate"] = recipe.arch_learning_rate or default_arch_rate(steps, candidates, "full")
        arguments["gradient_clip_val"] = recipe.gradient_clip_val
        arguments["warmup_epochs"] = recipe.warmup_epochs
    elif issubclass(kind, LatencyENAS):
        if recipe.arch_learning_rate is not None:
            arguments["arc_learning_rate"] = recipe.arch_learning_rate
        arguments["warmup_epochs"] = recipe.warmup_epochs
    elif issubclass(kind, RandomSearch):
        arguments["seed"] = recipe.seed
    return _make(kind, recipe, {"latency": latency, **budget, **arguments})


def _make(kind: type[Any], recipe: Recipe, arguments: dict[str, Any]) -> LatencyAwareStrategy:
    try:
        made: LatencyAwareStrategy = kind(**{**arguments, **recipe.strategy_args})
        return made
    except TypeError as reason:
        raise RecipeError(f"strategy {recipe.strategy} does not take these arguments: {reason}") from reason


def load_strategy(name: str) -> type[Any]:
    """Load the class that `package.module:Class` names, and make it latency-aware.

    Raises:
        RecipeError: There is no such module or class, or the class is not a one-shot strategy.
    """
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as reason:
        raise RecipeError(f"strategy {name} cannot be loaded: {reason}") from reason
    if not (isinstance(found, type) and issubclass(found, OneShotStrategy)):
        raise RecipeError(f"strategy {name} is not a subclass of NNI's OneShotStrategy")
    if issubclass(found, LatencyAwareStrategy):
        return found
    base = Differentiable if issubclass(found, DARTS) else Adopted
    return type(f"LatencyAware{class_name}", (base, found), {"strategy_name": name})


def _in_order(known: Sequence[Any], given: Mapping[Any, float]) -> list[float]:
    """Return probabilities in the order of a label's candidates, with 0 for candidates that are missing in `given`."""
    by_name = {str(candidate): p for candidate, p in given.items()}
    return [float(by_name.get(str(candidate), 0.0)) for candidate in known]
