"""Forecasts how long the trials of an experiment take. Trials that differ only in their values are timed once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..deploy.forecast import forecast_retraining
from ..deploy.retrain import prepare_retraining
from ..deploy.retrain_recipe import RetrainRecipe
from ..search.forecast import forecast_search, stand_in_table, without_budget_in_ms
from ..search.prepared import Prepared, check_batches, load_recipe_data
from ..search.recipe import Recipe
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
        timed: Number of kinds that were timed; the others count as their mean.
        steps: Number of steps that were timed.
        trial: Duration of a trial, on average.
        total: Duration of all trials.
    """

    kinds: int
    timed: int
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
    for members in list(kinds.values())[:MOST_KINDS]:
        one = _forecast(members[0])
        if one is None:
            return None
        sums = sums.plus(one.times(len(members)))
        counted += len(members)
        steps += one.count
    trial = sums.times(1 / counted)
    return ExperimentForecast(len(kinds), min(len(kinds), MOST_KINDS), steps, trial, trial.times(trials))


def _forecast(recipe: Recipe | RetrainRecipe) -> Timing | None:
    if isinstance(recipe, RetrainRecipe):
        retraining = forecast_retraining(prepare_retraining(recipe))
        return None if retraining is None else retraining.total
    spec, splits = load_recipe_data(recipe)
    check_batches(recipe, splits)
    changed = without_budget_in_ms(recipe)
    search = forecast_search(Prepared(changed, recipe.chosen_target(), spec, stand_in_table(spec), splits))
    return None if search is None else search.total
