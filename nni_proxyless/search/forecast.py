"""Forecasts how long a search takes: a few of its steps are run and timed, and nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch.utils.data import Subset

from ..latency.device import this_device
from ..latency.table import Calibration, LatencyTable, OperatorCost
from ..network.space_spec import SpaceSpec
from ..strategies.halving import Halving, rounds_of
from ..supernet.space import MobileNetV2Space
from ..training.step_probe import NOTHING, StepProbe, Timing, probing
from ..training.trainer import check_hardware, make_trainer, seed_epoch, use_threads
from .make_strategy import make_strategy
from .prepared import Prepared
from .recipe import Recipe
from .run import make_loaders, make_module, steps_per_epoch
from .shared_search import epochs_done
from .shared_weights import SharedWeightEvaluator

_EVALUATED_BATCHES = 3
_ENAS_BATCHES = 6


@dataclass(frozen=True)
class Forecast:
    """How long a search takes.

    Attributes:
        done: Number of epochs that are already trained, by an interrupted search or by the shared one.
        steps: Number of steps of an epoch.
        warmup_step: Duration of a step that trains only weights; `None` if the search has none.
        search_step: Duration of a step of the search, architecture steps included, on average.
        evaluation: Duration of the evaluation of one network after an epoch.
        finalist: Duration of the evaluation of one finalist.
        training: Duration of the epochs that are left, with their evaluations.
        comparison: Duration of the comparison of the finalists, and of their training alone.
    """

    done: int
    steps: int
    warmup_step: Timing | None
    search_step: Timing
    evaluation: Timing
    finalist: Timing
    training: Timing
    comparison: Timing

    @property
    def total(self) -> Timing:
        """Duration of training and comparison."""
        return self.training.plus(self.comparison)

    def training_after(self, done: int, recipe: Recipe) -> Timing:
        """Compute the duration of the epochs that are left of a search with the same steps.

        Args:
            done: Number of its epochs that are trained already.
            recipe: Recipe of the search.
        """
        search_end = recipe.epochs - recipe.finalist_epochs
        left = max(0, search_end - max(done, recipe.warmup_epochs))  # epochs that train the architecture
        epochs = max(0, recipe.epochs - done)
        training = self.search_step.times(self.steps * left).plus(self.evaluation.times(epochs))
        if self.warmup_step is not None:
            training = training.plus(self.warmup_step.times(self.steps * (epochs - left)))
        return training


def forecast_search(prepared: Prepared, done: int = 0) -> Forecast | None:
    """Time a few steps of a search, and forecast the whole search. Nothing is written.

    Args:
        prepared: Inputs of the search.
        done: Number of epochs that an interrupted search has already trained. For a shared search, it is counted here.

    Returns:
        The forecast; `None` if it cannot be made: for several devices, or if an epoch has too few steps to be timed.

    Raises:
        InputError: The search would refuse its recipe.
    """
    recipe = prepared.recipe
    check_hardware(recipe)
    if recipe.ranks > 1:
        return None
    use_threads(recipe.threads)
    weights_only = recipe.warmup_epochs + recipe.finalist_epochs + recipe.finalist_steps
    warm = _timed(prepared, warmup=True)[0] if weights_only else None
    cycle = recipe.effective_arch_update_every if recipe.strategy == "proxyless" else 1
    searching, evaluation, finalist = _timed(prepared, warmup=False, cycle=cycle)
    if searching is None or (weights_only and warm is None):
        return None
    steps = steps_per_epoch(recipe, prepared.splits)
    finalists = recipe.num_finalists(recipe.has_budget) if recipe.strategy == "proxyless" else recipe.finalists or 1
    comparison = finalist.times(finalists) if finalists > 1 else NOTHING
    if warm is not None and recipe.finalist_steps:
        comparison = comparison.plus(warm.times(Halving(recipe.finalist_steps).total(finalists)))
        comparison = comparison.plus(finalist.times(sum(rounds_of(finalists))))
    if recipe.share_search:
        done = epochs_done(prepared)
    found = Forecast(done, steps, warm, searching, evaluation, finalist, NOTHING, comparison)
    return replace(found, training=found.training_after(done, recipe))


def _timed(prepared: Prepared, *, warmup: bool, cycle: int = 1) -> tuple[Timing | None, Timing, Timing]:
    """Time steps of a search, and the evaluation of one network after an epoch and as a finalist."""
    changes: dict[str, Any] = {
        "epochs": 2,
        "warmup_epochs": int(warmup),
        "finalist_epochs": 0,
        "finalists": 1,
        "finalist_steps": 0,
        "sharpen_epochs": 0,
    }
    changes |= {"share_search": False}
    if prepared.recipe.budgets:  # their values do not change how long a step takes, but need further tables
        changes |= {"budgets": {}, "budget_fraction": None if prepared.recipe.budget_ms else 1.0}
    recipe = prepared.recipe.model_copy(update=changes)
    strategy = make_strategy(recipe, prepared.table, prepared.spec, steps_per_epoch(recipe, prepared.splits))
    splits = prepared.splits
    if recipe.strategy == "enas":  # it trains on one part after the other, so a short epoch has both, in proportion
        batches = (recipe.batch_size, recipe.arch_batch_size or recipe.batch_size)
        weights, architecture = len(splits.weights) // batches[0], len(splits.architecture) // batches[1]
        few = min(_ENAS_BATCHES, weights)
        short = (few * batches[0], min(max(1, round(few * architecture / weights)), architecture) * batches[1])
        splits = replace(
            splits,
            weights=Subset(splits.weights, range(short[0])),
            architecture=Subset(splits.architecture, range(short[1])),
        )
    seed_epoch(recipe.seed, 0)
    evaluations = [NOTHING, NOTHING]

    def evaluate() -> None:
        if not warmup:
            evaluations[:] = _evaluation(prepared, strategy)

    probe = StepProbe(cycle, evaluate)
    trainer = make_trainer(recipe, None, 1, probe)
    loaders = make_loaders(recipe, splits)
    evaluator = Lightning(
        make_module(recipe, steps_per_epoch(recipe, splits)),
        trainer,
        train_dataloaders=loaders["weights"],
        val_dataloaders=loaders["architecture"],
    )
    space = RawFormatModelSpace.from_model(MobileNetV2Space(prepared.spec, recipe.entangle_weights), evaluator)
    with probing():
        strategy(space, SequentialExecutionEngine())
    return probe.timing, evaluations[0], evaluations[1]


def _evaluation(prepared: Prepared, strategy: Any) -> tuple[Timing, Timing]:
    """Time the evaluation of one network on a few batches, and scale it to all batches."""
    recipe, splits = prepared.recipe, prepared.splits
    few = _EVALUATED_BATCHES * recipe.batch_size
    held_out = Subset(splits.held_out, range(min(few, len(splits.held_out))))
    bn_batches = min(recipe.bn_batches, _EVALUATED_BATCHES)
    small = recipe.model_copy(update={"bn_batches": bn_batches})
    evaluator = SharedWeightEvaluator(small, replace(splits, held_out=held_out))
    architecture = strategy.export_architecture(target=prepared.target.name, seed=recipe.seed)
    start = time.perf_counter()
    network = evaluator.network(strategy.supernet, architecture)
    built = time.perf_counter()
    evaluator.held_out_accuracy(network)
    end = time.perf_counter()
    statistics_s = (built - start) / max(bn_batches, 1) * max(recipe.bn_batches, 1)
    batch_s = (end - built) / math.ceil(len(held_out) / recipe.batch_size)

    def whole(images: int) -> Timing:
        seconds = statistics_s + batch_s * math.ceil(images / recipe.batch_size)
        return Timing(seconds, seconds, seconds, 0)

    return whole(len(splits.held_out)), whole(len(splits.finalists))


def stand_in_table(spec: SpaceSpec) -> LatencyTable:
    """Return a table in which every operator takes 1 ms, for timing a search whose own table is not measured yet.

    How long a step takes does not depend on the numbers in the table. They are never shown.
    """
    return LatencyTable(
        device=this_device(),
        backend="torch",
        backend_version="0",
        dtype="float32",
        batch=1,
        threads=1,
        date="2000-01-01T00:00:00+00:00",
        operators={operator: OperatorCost(1.0, 0.0, 1) for operator in spec.distinct_operators()},
        calibration=Calibration(1.0, 0.0, 0, None),
        space=spec.name,
    )


def without_budget_in_ms(recipe: Recipe) -> Recipe:
    """Return a recipe for `stand_in_table`. If the recipe has a budget, it becomes one that is met with every table."""
    fraction = 1.0 if recipe.has_budget else None
    return recipe.model_copy(update={"budget_ms": None, "budget_fraction": fraction, "budgets": {}})
