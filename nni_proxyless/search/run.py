"""One search from a recipe: it trains the supernet with an NNI strategy, and writes the results to a folder.

`nni-proxyless search` and the trials of NNI's manager call the same function, with different functions that receive the
records of the epochs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from .. import results_folder
from ..data.splits import DataSplits
from ..errors import RunError
from ..files import write_yaml
from ..latency import LatencyTable
from ..latency.difference import difference_warning
from ..network.architecture import Architecture
from ..network.weights import save_weights
from ..process_memory import keep_freed_memory
from ..strategies.path_parallel import PathParallelStrategy
from ..supernet.space import MobileNetV2Space
from ..training.image_classification import ImageClassification
from ..training.trainer import check_hardware, is_interrupted, make_trainer, uses_channels_last
from .earlier import remove_earlier
from .epoch_callback import EpochCallback, SearchReport
from .make_strategy import make_strategy
from .prepared import Prepared
from .recipe import Recipe
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
    the interrupted epoch, with its own latency table.

    Args:
        prepared: Inputs of the search, loaded by `prepare`.
        output: Folder of the results; created if it does not exist.
        report: Function that is called after each epoch with the epoch's record and the record's number, counted from
            0. At the end, it is called with the last record and `None`.
        trial_parameters: Parameters that NNI sent to the trial, for the architecture file.

    Returns:
        Architecture with its predicted latency. If the target is this machine, the measured latency is included.

    Raises:
        InputError: The accelerator is not available, or no network is within the budget.
        RunError: The training failed.
    """
    recipe, spec = prepared.recipe, prepared.spec
    check_hardware(recipe)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / results_folder.CHECKPOINT
    interrupted = is_interrupted(recipe, output, (results_folder.CHECKPOINT, results_folder.LATENCY_TABLE))
    if interrupted:
        prepared = replace(prepared, table=LatencyTable.load(output / results_folder.LATENCY_TABLE))
    steps_per_epoch = _steps_per_epoch(recipe, prepared.splits)
    strategy = make_strategy(recipe, prepared.table, spec, steps_per_epoch)
    if not interrupted and is_main_process():
        # Only now, when the recipe has been accepted as a whole, are the files of an earlier search removed.
        make_strategy(recipe, prepared.table, spec, steps_per_epoch).apply_table(MobileNetV2Space(spec))
        remove_earlier(output)
        write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))
        prepared.table.save(output / results_folder.LATENCY_TABLE)
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    pl.seed_everything(recipe.seed)
    loaders = _loaders(recipe, prepared.splits)
    strategy.compare_on(
        finalists_loader(recipe, prepared.splits), statistics_loader(recipe, prepared.splits), recipe.bn_batches
    )
    callback = EpochCallback(prepared, strategy, output, report)
    several = PathParallelStrategy() if recipe.devices > 1 else "auto"
    trainer = make_trainer(recipe, output, steps_per_epoch, callback, strategy=several)
    module = ImageClassification(
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        decay_norm_bias=recipe.decay_norm_bias,
        label_smoothing=recipe.label_smoothing,
        total_steps=steps_per_epoch * recipe.epochs,
        channels_last=uses_channels_last(recipe),
    )
    with contextlib.ExitStack() as stack:
        start = checkpoint if interrupted else None
        if interrupted:
            _log.info("going on where the search in %s was interrupted", output)
        elif recipe.strategy == "proxyless" and recipe.share_warmup and recipe.warmup_epochs > 0:
            warmup = stack.enter_context(shared_warmup(_warmup_depends_on(prepared), wait=is_main_process()))
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
        strategy(space, SequentialExecutionEngine())
    architecture, network = callback.decode()
    if not is_main_process():
        return architecture
    if callback.last is None:
        raise RunError("the search ended without finishing an epoch")
    measured = prepared.target.measure(architecture, prepared.table)
    off = difference_warning(architecture.predicted_latency_ms, measured)
    if off is not None:
        _log.warning("%s: %s", prepared.target.name, off)
    architecture = replace(
        architecture,
        measured_latency_ms=measured,
        warnings=(*architecture.warnings, *([off] if off is not None else [])),
        metrics=callback.last.metrics(),
        trial_parameters=dict(trial_parameters or {}),
    )
    save_weights(network, output / results_folder.WEIGHTS)
    architecture.save(output / results_folder.ARCHITECTURE)
    _log.info(
        "%s: accuracy %.4f, predicted %.3f ms, measured %s",
        prepared.target.name, callback.last.default, callback.last.latency_ms,
        "not at all" if measured is None else f"{measured:.3f} ms",
    )  # fmt: skip
    if report:
        report(callback.last, None)
    return architecture


def is_main_process() -> bool:
    """Whether this is the main process, and not one that Lightning has started for another device."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _steps_per_epoch(recipe: Recipe, splits: DataSplits) -> int:
    """Number of steps of the learning rate's schedule in an epoch.

    An epoch ends with the longer of the two parts of the data. The shorter part is repeated.
    """
    sizes = (
        (len(splits.weights), recipe.batch_size),
        (len(splits.architecture), recipe.arch_batch_size or recipe.batch_size),
    )
    steps = [math.ceil(images / recipe.devices) // batch for images, batch in sizes]
    if recipe.strategy == "enas":
        return sum(steps)  # ENAS trains on one part after the other, and the learning rate falls during both
    return steps[0] if recipe.strategy == "random" else max(steps)


def _warmup_depends_on(prepared: Prepared) -> dict[str, Any]:
    recipe = prepared.recipe
    keys = (
        "data", "data_dir", "arch_fraction", "held_out_fraction", "seed", "epochs", "warmup_epochs", "batch_size",
        "arch_batch_size", "learning_rate", "momentum", "weight_decay", "decay_norm_bias", "label_smoothing",
        "gradient_clip_val", "warmup_sampling", "entangle_weights", "accelerator", "devices", "precision",
        "channels_last", "threads", "num_workers",
    )  # fmt: skip
    settings = recipe.to_dict(absolute=True)
    return {
        **{key: settings[key] for key in keys},
        "space": prepared.spec.to_dict(),
        "images": [len(prepared.splits.weights), len(prepared.splits.architecture), len(prepared.splits.held_out)],
        "cuda": torch.cuda.is_available(),
        "versions": [version(name) for name in ("nni-proxyless", "torch", "torchvision", "pytorch-lightning")],
    }


def _loaders(recipe: Recipe, splits: DataSplits) -> dict[str, Any]:
    common = {"shuffle": True, "drop_last": True, "num_workers": recipe.num_workers}
    return {
        "weights": DataLoader(splits.weights, batch_size=recipe.batch_size, **common),
        "architecture": DataLoader(
            splits.architecture, batch_size=recipe.arch_batch_size or recipe.batch_size, **common
        ),
    }
