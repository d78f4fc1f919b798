"""Forecasts how long a retraining takes: a few of its steps are run and timed, and nothing is written."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Subset

from ..network.weights import load_into
from ..training.accuracy import accuracies
from ..training.cpu_kernels import accelerate
from ..training.step_probe import StepProbe, Timing, probing
from ..training.trainer import check_hardware, make_trainer, seed_epoch, use_threads
from .retrain import Retraining
from .retrain_epochs import PreparedRetraining, ema_decay, make_loader

_EVALUATED_BATCHES = 3


@dataclass(frozen=True)
class RetrainForecast:
    """How long a retraining takes.

    Attributes:
        steps: Number of steps of an epoch.
        step: Duration of a step.
        evaluation: Duration of the validation after an epoch.
        total: Duration of all epochs.
    """

    steps: int
    step: Timing
    evaluation: Timing
    total: Timing


def forecast_retraining(prepared: PreparedRetraining) -> RetrainForecast | None:
    """Time a few steps of a retraining, and forecast the whole of it. Nothing is written.

    Args:
        prepared: Result of `prepare_retraining`.

    Returns:
        The forecast; `None` for several devices, or if an epoch has too few steps to be timed.

    Raises:
        InputError: The accelerator is not available.
    """
    recipe = prepared.recipe
    check_hardware(recipe)
    if recipe.ranks > 1:
        return None
    use_threads(recipe.threads)
    seed_epoch(recipe.seed, 0)
    network = accelerate(prepared.architecture.build())
    if prepared.inherited is not None:
        load_into(network, {**network.state_dict(), **prepared.inherited})
    loader = make_loader(recipe, prepared.splits.training, shuffle=True, drop_last=True)
    module = Retraining(recipe, len(loader), prepared.architecture.require_spec().classes, None, prepared.teacher)
    module.set_model(network)
    held_out = prepared.splits.held_out
    few = Subset(held_out, range(min(_EVALUATED_BATCHES * recipe.batch_size, len(held_out))))
    taken: list[float] = []

    def evaluate() -> None:
        start = time.perf_counter()
        accuracies(network, make_loader(recipe, few), (1, 5))
        taken.append(time.perf_counter() - start)

    decay = ema_decay(recipe, len(loader) * recipe.epochs)
    averages = [AveragedModel(network, use_buffers=True)] if decay > 0 else []

    def average() -> None:
        for one in averages:
            one.update_parameters(network)

    probe = StepProbe(then=evaluate, each=average)
    trainer = make_trainer(recipe, None, len(loader), probe, gradient_clip_val=recipe.gradient_clip_val)
    with probing():
        trainer.fit(module, loader)
    step = probe.timing
    if step is None:
        return None
    batches = math.ceil(len(few) / recipe.batch_size)
    seconds = taken[0] / batches * math.ceil(len(held_out) / recipe.batch_size)
    evaluation = Timing(seconds, seconds, seconds, 0)
    total = step.times(len(loader) * recipe.epochs).plus(evaluation.times(recipe.epochs))
    return RetrainForecast(len(loader), step, evaluation, total)
