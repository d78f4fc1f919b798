"""One search from a recipe: it trains the supernet with an NNI strategy, and writes the results to a folder.

`nni-proxyless search` and the trials of NNI's manager call the same function, with different functions that receive the
records of the epochs.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from nni.nas.evaluator.pytorch import Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from torch import nn

from ..data.class_sizes import class_weights, few_images_warnings
from ..data.preprocessing_file import write_preprocessing
from ..data.splits import DataSplits
from ..errors import RunError
from ..files import results_folder
from ..files.claims import claimed
from ..files.writing import write_yaml
from ..latency.difference import difference_warning
from ..network.architecture import Architecture
from ..network.weights import save_weights
from ..process_memory import keep_freed_memory
from ..progress import work_begins
from ..signals import stopped_by_signals
from ..strategies.path_parallel import PathParallelStrategy
from ..supernet.space import MobileNetV2Space
from ..training.image_classification import ImageClassification
from ..training.late_loader import LateLoader
from ..training.ranks import is_main_process, own_processes
from ..training.resume import GOES_ON, HAS_FINISHED, restoring
from ..training.trainer import (
    check_hardware,
    helpers_ended,
    make_trainer,
    quiet_lightning,
    use_threads,
    uses_channels_last,
)
from ..values import not_finite_warning
from .earlier import check_places, replacing
from .epoch_callback import EpochCallback, Record, SearchReport
from .make_strategy import make_strategy
from .measured_budget import keep_measured_budget
from .other_tables import save_tables
from .prepared import Prepared
from .recipe import Recipe
from .resumed import check_checkpoint, resumed
from .shared_search import from_shared_search, software
from .shared_weights import finalists_loader, statistics_loader
from .warmup import shared_warmup

_log = logging.getLogger(__name__)


def run_search(
    prepared: Prepared,
    output: Path,
    report: SearchReport | None = None,
    trial_parameters: Mapping[str, Any] | None = None,
) -> Architecture:
    """Search for an architecture, and write it to a folder with the history, latency table, checkpoint and logs.

    If the folder holds the checkpoint of a search with the same recipe, that search was interrupted. It is resumed at
    the interrupted epoch, with its own latency table. Results of another search in the folder remain until the first
    epoch is finished. If its checkpoint cannot be used, the checkpoint is renamed, and the search starts over.

    Args:
        prepared: Inputs of the search, loaded by `prepare`.
        output: Folder of the results; created if it does not exist. No other process may use it meanwhile.
        report: Function that is called after each epoch with the epoch's record and the record's number, counted from
            0. At the end, it is called with the last record and `None`.
        trial_parameters: Parameters that NNI sent to the trial, for the architecture file.

    Returns:
        Architecture with its predicted latency. If the target is this machine, the measured latency is included.

    Raises:
        InputError: The accelerator is not available, no network is within the budget, or another process uses the
            folder.
        RunError: The training failed, or a result cannot be written.
        Stopped: The process got SIGTERM or SIGHUP.
    """
    check_hardware(prepared.recipe)
    use_threads(prepared.recipe.threads)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopped_by_signals())
        stack.enter_context(own_processes(prepared.recipe.devices, prepared.recipe.num_nodes))
        if is_main_process():
            stack.enter_context(claimed(output))
            check_places(output)
        interrupted = resumed(prepared, output)
        prepared = interrupted or prepared
        last: Record | None
        if prepared.recipe.share_search:
            architecture, network, last = from_shared_search(prepared, output, run_search, report)
        else:
            architecture, network, last = _train(prepared, output, report, interrupted is not None)
        if not is_main_process():
            return architecture
        return _finish(prepared, output, architecture, network, last, report, trial_parameters)


def _train(
    prepared: Prepared, output: Path, report: SearchReport | None, interrupted: bool
) -> tuple[Architecture, nn.Module, Record | None]:
    """Run the search, and return its architecture, the network with the supernet's weights, and the last record."""
    recipe, spec, splits = prepared.recipe, prepared.spec, prepared.splits
    steps = steps_per_epoch(recipe, splits)
    strategy = make_strategy(recipe, prepared.table, spec, steps, prepared.other_tables)
    if not interrupted:  # a second one is asked whether it accepts table and budget, before anything slow begins
        second = make_strategy(recipe, prepared.table, spec, steps, prepared.other_tables)
        second.apply_table(MobileNetV2Space(spec))
    work_begins()
    keep_freed_memory()
    quiet_lightning()
    pl.seed_everything(recipe.seed)
    loaders = make_loaders(recipe, prepared.splits)
    strategy.compare_on(
        finalists_loader(recipe, prepared.splits), statistics_loader(recipe, prepared.splits), recipe.bn_batches
    )

    def begin() -> None:
        write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))
        prepared.table.save(output / results_folder.LATENCY_TABLE)
        save_tables(output / results_folder.OTHER_TABLES, prepared.other_tables)
        write_preprocessing(output, splits.preprocessing, splits.class_names)

    weights = class_weights(recipe.class_weights, splits.weights_labels, splits.class_names)
    module = make_module(recipe, steps * recipe.epochs, weights)
    with contextlib.ExitStack() as stack:
        anew = not interrupted and is_main_process()
        replaced = stack.enter_context(replacing(output, begin)) if anew else lambda _: None
        callback = EpochCallback(prepared, strategy, output, report, replaced)
        callback.notes = data_warnings(prepared)
        for text in callback.notes if is_main_process() else ():
            _log.warning("%s", text)
        several = PathParallelStrategy() if recipe.ranks > 1 else "auto"
        trainer = make_trainer(recipe, output, steps, callback, strategy=several)
        start = output / results_folder.CHECKPOINT if interrupted else None
        if interrupted:
            finished = (output / results_folder.ARCHITECTURE).is_file()
            _log.info(HAS_FINISHED if finished else GOES_ON, "search", output)
        elif recipe.strategy == "proxyless" and _shares_warmup(recipe):
            check = partial(check_checkpoint, spec=spec) if is_main_process() else None
            warmup = stack.enter_context(
                shared_warmup(_warmup_depends_on(prepared), wait=is_main_process(), check=check)
            )
            callback.warmup = warmup
            if warmup.found:
                _log.info("%d epochs of warm-up from %s", recipe.warmup_epochs, warmup.path)
                start = warmup.path
                strategy.takes_warnings_over = False
        evaluator = Lightning(
            module,
            trainer,
            train_dataloaders=loaders["weights"],
            val_dataloaders=loaders["architecture"],
            fit_kwargs={} if start is None else {"ckpt_path": str(start)},
        )
        space = RawFormatModelSpace.from_model(MobileNetV2Space(spec, recipe.entangle_weights), evaluator)
        with restoring(start, lambda: callback.begun), helpers_ended(trainer):
            strategy(space, SequentialExecutionEngine())
    return *callback.decode(), callback.last


def _finish(
    prepared: Prepared,
    output: Path,
    architecture: Architecture,
    network: nn.Module,
    last: Record | None,
    report: SearchReport | None,
    trial_parameters: Mapping[str, Any] | None,
) -> Architecture:
    """Measure the network that was found, replace it if it exceeds its budget, and write and report the result."""
    if last is None:
        raise RunError("the search ended without finishing an epoch")
    measure = partial(prepared.target.measure, table=prepared.table)
    (architecture, network, last), measured = keep_measured_budget(
        prepared, output, (architecture, network, last), measure
    )
    off = difference_warning(architecture.predicted_latency_ms, measured)
    if off is not None:
        _log.warning("%s: %s", prepared.target.name, off)
    architecture = replace(
        architecture,
        measured_latency_ms=measured,
        warnings=(
            *data_warnings(prepared),
            *architecture.warnings,
            *filter(None, (off, not_finite_warning(last.known()))),
        ),
        metrics=last.metrics(),
        trial_parameters=dict(trial_parameters or {}),
    )
    save_weights(network, output / results_folder.WEIGHTS)
    architecture.save(output / results_folder.ARCHITECTURE)
    if report:
        report(last, None)
    return architecture


def make_module(recipe: Recipe, total_steps: int, weights: Any = None) -> ImageClassification:
    """Create the Lightning module that trains the supernet's weights.

    Args:
        recipe: Recipe of the search.
        total_steps: Number of steps in which the learning rate falls to 0.
        weights: Weights of the classes in the loss; `None` for equal ones.
    """
    return ImageClassification(
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        decay_norm_bias=recipe.decay_norm_bias,
        label_smoothing=recipe.label_smoothing,
        total_steps=total_steps,
        channels_last=uses_channels_last(recipe),
        class_weights=weights,
    )


def steps_per_epoch(recipe: Recipe, splits: DataSplits) -> int:
    """Number of steps of the learning rate's schedule in an epoch.

    An epoch ends with the longer of the two parts of the data. The shorter part is repeated.
    """
    sizes = (
        (len(splits.weights), recipe.batch_size),
        (len(splits.architecture), recipe.arch_batch_size or recipe.batch_size),
    )
    steps = [math.ceil(images / recipe.ranks) // batch for images, batch in sizes]
    if recipe.strategy == "enas":
        return sum(steps)  # ENAS trains on one part after the other, and the learning rate falls during both
    return steps[0] if recipe.strategy == "random" else max(steps)


def data_warnings(prepared: Prepared) -> tuple[str, ...]:
    """Return what a user should know about a search with few images."""
    recipe, splits = prepared.recipe, prepared.splits
    weight_steps = len(splits.weights) // recipe.ranks // recipe.batch_size * recipe.epochs
    return few_images_warnings(
        splits.weights_labels, len(splits.held_out), recipe.batch_size * recipe.ranks, weight_steps, recipe.epochs
    )


def _shares_warmup(recipe: Recipe) -> bool:
    """Whether the warm-up may come from another search. Several machines may have different caches of warm-ups."""
    return recipe.share_warmup and recipe.warmup_epochs > 0 and recipe.num_nodes == 1


def _warmup_depends_on(prepared: Prepared) -> dict[str, Any]:
    recipe = prepared.recipe
    keys = (
        "data", "data_dir", "arch_fraction", "held_out_fraction", "seed", "epochs", "warmup_epochs", "batch_size",
        "arch_batch_size", "learning_rate", "momentum", "weight_decay", "decay_norm_bias", "label_smoothing",
        "gradient_clip_val", "warmup_sampling", "entangle_weights", "accelerator", "devices", "precision",
        "channels_last", "threads", "num_workers", "class_weights", "augmentation", "flip",
    )  # fmt: skip
    settings = recipe.to_dict(absolute=True)
    return {
        **{key: settings[key] for key in keys},
        "space": prepared.spec.to_dict(),
        "preprocessing": prepared.splits.preprocessing.to_dict(),
        # These budgets remove candidates before the warm-up.
        "excluded": {key: limit for key, limit in recipe.budgets.items() if key.startswith("peak_memory")},
        "images": [len(prepared.splits.weights), len(prepared.splits.architecture), len(prepared.splits.held_out)],
        **software(),
    }


def make_loaders(recipe: Recipe, splits: DataSplits) -> dict[str, Any]:
    """Create the loaders of the images that train the weights and of those that train the architecture."""
    common: dict[str, Any] = {"shuffle": True, "drop_last": True, "num_workers": recipe.num_workers}
    return {
        "weights": LateLoader(splits.weights, batch_size=recipe.batch_size, **common),
        "architecture": LateLoader(
            splits.architecture, batch_size=recipe.arch_batch_size or recipe.batch_size, **common
        ),
    }
