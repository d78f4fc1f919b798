"""Forecasts how long the trials of an experiment take. Trials that differ only in their values are timed once.

Trials that share one search train it once. Each of them adds at most the comparison of its own finalists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..deploy.forecast import forecast_retraining
from ..deploy.retrain import prepare_retraining
from ..deploy.retrain_recipe import RetrainRecipe
from ..search.forecast import forecast_search, stand_in_table, without_budget_in_ms
from ..search.prepared import Prepared, check_batches, load_recipe_data
from ..search.recipe import Recipe
from ..search.shared_search import epochs_done, shared_settings
from ..training.step_probe import NOTHING, Timing

MOST_KINDS = 6
# Keys that do not change how long a step takes.
_VALUES_ONLY = {
    "target", "targets", "seed", "learning_rate", "momentum", "weight_decay", "decay_norm_bias", "label_smoothing",
    "gradient_clip_val", "latency_weight", "arch_learning_rate", "arch_beta1", "arch_beta2", "arch_weight_decay",
    "arch_schedule", "accept_tables", "share_warmup", "budget_ms", "budget_fraction", "budgets",
    "ema_decay", "split_seed",
}  # fmt: skip


@dataclass(frozen=True)
class ExperimentForecast:
    """How long the trials of an experiment take, one after the other.

    Attributes:
        kinds: Number of kinds of trials.
        timed: Number of kinds that were timed. Their mean is used for the others.
        shared: Number of shared searches, each of which serves several trials.
        steps: Number of steps that were timed.
        trial: Duration of a trial, on average.
        total: Duration of all trials.
    """

    kinds: int
    timed: int
    shared: int
    steps: int
    trial: Timing
    total: Timing


def forecast_experiment(recipes: Sequence[Recipe | RetrainRecipe], trials: int) -> ExperimentForecast | None:
    """Time a few steps of each kind of trial, and forecast all trials. Nothing is written.

    Args:
        recipes: Recipes of the trials.
        trials: Number of trials.

    Returns:
        The forecast; `None` if it cannot be made, see `forecast_search`.

    Raises:
        InputError: A trial would refuse its recipe.
    """
    kinds: dict[str, list[Recipe | RetrainRecipe]] = {}
    for recipe in recipes:
        values = {key: value for key, value in recipe.to_dict(absolute=True).items() if key not in _VALUES_ONLY}
        kinds.setdefault(json.dumps(values, sort_keys=True, default=str), []).append(recipe)
    sums, counted, steps = NOTHING, 0, 0
    shared: set[str] = set()
    for members in list(kinds.values())[:MOST_KINDS]:
        one = _of_kind(members, shared)
        if one is None:
            return None
        sums = sums.plus(one)
        counted += len(members)
        steps += one.count
    trial = sums.times(1 / counted)
    timed = min(len(kinds), MOST_KINDS)
    return ExperimentForecast(len(kinds), timed, len(shared), steps, trial, trial.times(trials))


def _of_kind(members: Sequence[Recipe | RetrainRecipe], shared: set[str]) -> Timing | None:
    """Forecast all trials of a kind. The settings of shared searches are added to those that were counted before."""
    first = members[0]
    if isinstance(first, RetrainRecipe):
        retraining = forecast_retraining(prepare_retraining(first))
        return None if retraining is None else retraining.total.times(len(members))
    search = forecast_search(_prepared(first))
    if search is None:
        return None
    if not first.share_search:
        return search.total.times(len(members))
    total = search.comparison.times(len(members))
    for member in members:
        assert isinstance(member, Recipe)
        settings = json.dumps(shared_settings(member), sort_keys=True, default=str)
        if settings not in shared:
            shared.add(settings)
            total = total.plus(search.training_after(epochs_done(_prepared(member)), member))
    return replace(total, count=search.total.count)


def _prepared(recipe: Recipe) -> Prepared:
    spec, splits = load_recipe_data(recipe)
    check_batches(recipe, splits)
    changed = without_budget_in_ms(recipe)
    return Prepared(changed, recipe.chosen_target(), spec, stand_in_table(spec), splits)
