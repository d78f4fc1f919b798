"""Strategies by their name in a recipe: this package's, NNI's with latency, and any class of the user's."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import nni.nas.strategy  # noqa: F401  first: or NNI's import cycle leaves stubs instead of its DARTS and ENAS
import torch
from nni.nas.oneshot.pytorch.strategy import OneShotStrategy
from nni.nas.strategy import DARTS
from torch import Tensor

from ..errors import RecipeError
from ..latency.table import LatencyTable
from ..network.space_spec import SpaceSpec
from ..strategies.arch_settings import ARCH_WEIGHT_DECAY, default_arch_rate
from ..strategies.baselines import (
    Baseline,
    Differentiable,
    LatencyDARTS,
    LatencyENAS,
    LatencyGumbelDARTS,
    LatencyNniProxyless,
    RandomSearch,
)
from ..strategies.latency_aware import LatencyAwareStrategy, checked_candidates
from ..strategies.proxyless import ProxylessNAS
from .recipe import Recipe

BASELINES: dict[str, type[Baseline]] = {
    "darts": LatencyDARTS,
    "gumbel_darts": LatencyGumbelDARTS,
    "enas": LatencyENAS,
    "random": RandomSearch,
    "nni_proxyless_builtin": LatencyNniProxyless,
}


class Adopted(Baseline):
    """Any one-shot strategy of NNI's kind: what it has come to is read from its module's `export_probs`."""

    def path_probs(self) -> dict[str, Tensor]:
        """Label to what the module exports, normalised, shape (num_candidates,), float64."""
        module = self.oneshot_module
        exported = module.export_probs()
        probs = {}
        for label, candidates in self._candidates.items():
            given = exported.get(label)
            if isinstance(given, dict) and given:
                values = torch.tensor(checked_candidates(candidates, given), dtype=torch.float64)
            else:  # no distribution: the one that it exports
                chosen = module.export()[label]
                values = torch.tensor([float(candidate == chosen) for candidate in candidates], dtype=torch.float64)
            # Never 0: decoding within a budget must be able to leave what the strategy prefers.
            probs[label] = (values + 1e-9) / (values + 1e-9).sum()
        return probs


def make_strategy(recipe: Recipe, table: LatencyTable, spec: SpaceSpec, steps_per_epoch: int) -> LatencyAwareStrategy:
    """The NNI strategy that a recipe asks for.

    Args:
        recipe: The recipe.
        table: Of the target.
        spec: The space.
        steps_per_epoch: Weight steps in an epoch.

    Raises:
        RecipeError: There is no such strategy, or it does not take the recipe's `strategy_args`.
    """
    arguments = _common(recipe, table)
    known: dict[str, type[Any]] = {"proxyless": ProxylessNAS, **BASELINES}
    kind = known.get(recipe.strategy) or _load(recipe.strategy)
    if issubclass(kind, ProxylessNAS):  # a subclass of the user's has the same keys
        arguments |= _of_proxyless(recipe)
    elif issubclass(kind, Differentiable):
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
    return _make(kind, recipe, arguments)


def _common(recipe: Recipe, table: LatencyTable) -> dict[str, Any]:
    return {
        "latency": table,
        "budget_ms": recipe.budget_ms,
        "budget_fraction": recipe.budget_fraction,
        "objective": recipe.objective,
        "latency_weight": recipe.latency_weight,
        **({} if recipe.finalists is None else {"finalists": recipe.finalists}),
    }


def _of_proxyless(recipe: Recipe) -> dict[str, Any]:
    decay = recipe.arch_weight_decay
    if decay is None:
        decay = ARCH_WEIGHT_DECAY if recipe.arch_gradient == "full" else 0.0
    return {
        "arch_gradient": recipe.arch_gradient,
        "arch_learning_rate": recipe.arch_learning_rate,
        "arch_betas": (recipe.arch_beta1, recipe.arch_beta2),
        "arch_weight_decay": decay,
        "arch_schedule": recipe.arch_schedule,
        "arch_update_every": recipe.arch_update_every or (2 if recipe.arch_gradient == "full" else 1),
        "arch_samples": recipe.arch_samples,
        "arch_batch_norm": recipe.arch_batch_norm,
        "reinforce_samples": recipe.reinforce_samples,
        "warmup_epochs": recipe.warmup_epochs,
        "warmup_sampling": recipe.warmup_sampling,
        "weight_sampling": recipe.weight_sampling,
        "finalist_epochs": recipe.finalist_epochs,
        "sharpen_epochs": recipe.sharpen_epochs,
        "sharpen_temperature": recipe.sharpen_temperature,
        "prune_below": recipe.prune_below,
        "gradient_clip_val": recipe.gradient_clip_val,
        "seed": recipe.seed,
    }


def _make(kind: type[Any], recipe: Recipe, arguments: dict[str, Any]) -> LatencyAwareStrategy:
    try:
        made: LatencyAwareStrategy = kind(**{**arguments, **recipe.strategy_args})
        return made
    except TypeError as reason:
        raise RecipeError(f"strategy {recipe.strategy} does not take these arguments: {reason}") from reason


def _load(name: str) -> type[Any]:
    """The class that `package.module:Class` names, made latency-aware.

    Raises:
        RecipeError: There is no such module or class, or it is no one-shot strategy.
    """
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError) as reason:
        raise RecipeError(f"strategy {name} cannot be loaded: {reason}") from reason
    if not (isinstance(found, type) and issubclass(found, OneShotStrategy)):
        raise RecipeError(f"strategy {name} is no subclass of NNI's OneShotStrategy")
    if issubclass(found, LatencyAwareStrategy):
        return found
    base = Differentiable if issubclass(found, DARTS) else Adopted
    return type(f"LatencyAware{class_name}", (base, found), {"strategy_name": name})
