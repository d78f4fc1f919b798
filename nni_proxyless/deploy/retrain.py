"""Retrains a found network, validates it on data that no search has learnt from, and writes a model card.

The training uses SGD with Nesterov momentum, a linear warm-up of the learning rate followed by a cosine decay, label
smoothing, no weight decay of normalisation parameters and biases, and an exponential moving average of the weights.
Mixup and cutmix are off by default.
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
import torch
from pytorch_lightning.strategies import DDPStrategy
from torch import nn

from ..data.class_sizes import class_weights, differ_in_size, few_images_warnings
from ..data.preprocessing_file import read_preprocessing, write_preprocessing
from ..data.request import Request
from ..data.sources import native_shape
from ..data.splits import DataSplits, load_splits
from ..errors import DamagedFileError, DataError, RunError
from ..files import results_folder
from ..files.claims import claimed
from ..files.writing import write_json, write_yaml
from ..network.architecture import Architecture
from ..network.inherited import Inherited, read_inherited, weights_file
from ..network.space_spec import SpaceSpec
from ..network.torch_file import read_torch_file
from ..network.weights import load_into, save_weights
from ..process_memory import keep_freed_memory
from ..progress import work_begins
from ..search.earlier import check_places, replacing
from ..signals import interruptions_raised, stopped_by_signals
from ..training.accuracy import evaluate
from ..training.cpu_kernels import accelerate
from ..training.late_loader import LateLoader
from ..training.ranks import WAITING, is_main_process, own_processes
from ..training.resume import GOES_ON, HAS_FINISHED, is_interrupted, read_checkpoint, restoring, usable
from ..training.trainer import check_hardware, helpers_ended, make_trainer, quiet_lightning, use_threads
from . import retrain_sources as sources
from .distillation import load_teacher
from .model_card import model_card, of_accuracies
from .retrain_epochs import STATE_KEY, PreparedRetraining, RetrainEpochs, RetrainReport, make_loader
from .retrain_epochs import RetrainRecord as RetrainRecord
from .retrain_epochs import ema_decay as ema_decay
from .retrain_module import Retraining as Retraining
from .retrain_recipe import RetrainRecipe

_log = logging.getLogger(__name__)


def prepare_retraining(recipe: RetrainRecipe) -> PreparedRetraining:
    """Load and check the input of a retraining.

    Raises:
        InputError: The architecture, its weights or the data are invalid.
    """
    architecture = _for_the_data(recipe.check_files(), recipe)
    spec = architecture.require_spec()
    splits = load_recipe_splits(recipe, spec)
    class_weights(recipe.class_weights, splits.training_labels, splits.class_names)  # refuses wrong ones
    if spec.classes != splits.num_classes:
        _log.info("the architecture has %d classes; using the data's %d", spec.classes, splits.num_classes)
        changed = spec.with_changes(classes=splits.num_classes)
        architecture = replace(architecture, spec=changed, space_hash=changed.content_hash)
    images = math.ceil(len(splits.training) / recipe.ranks)
    if images < recipe.batch_size:
        each = " for each device" if recipe.ranks > 1 else ""
        raise DataError(
            f"batch_size {recipe.batch_size} is larger than the training part of the data ({images} images{each}); "
            "choose a smaller one"
        )
    inherited, notes = None, []
    if recipe.inherit is not None:
        found = _inherit(recipe.resolve(recipe.inherit), architecture, splits)
        inherited = found.state
        if found.left_out is not None:
            notes.append(f"the classifier of {recipe.inherit} is left out and initialised at random: {found.left_out}")
            _log.warning("%s", notes[-1])
    teacher = None
    if recipe.teacher is not None:
        drawn = torch.Generator().manual_seed(recipe.seed)
        statistics = make_loader(recipe, splits.statistics, shuffle=True, generator=drawn)
        teacher = load_teacher(recipe.resolve(recipe.teacher), architecture.require_spec(), statistics)
    return PreparedRetraining(recipe, architecture, splits, inherited, teacher, tuple(notes))


def _inherit(path: Path, architecture: Architecture, splits: DataSplits) -> Inherited:
    """Read the initial weights. The classifier is left out if its classes are not those of the data."""
    file = weights_file(path)
    beside = read_preprocessing(file.parent)
    differ = None
    if beside is not None and tuple(beside[1]) != tuple(splits.class_names):
        differ = f"its {len(beside[1])} classes have other names than the {splits.num_classes} of the data"
    return read_inherited(file, architecture, differ)


def load_recipe_splits(recipe: RetrainRecipe, spec: SpaceSpec) -> DataSplits:
    """Load the data of a recipe, split as in the search.

    Raises:
        DataError: The data set does not exist, its folder is missing or empty, or it is too small.
    """
    return load_splits(
        recipe.data,
        spec.input_shape,
        data_dir=None if recipe.data_dir is None else recipe.resolve(recipe.data_dir),
        download=recipe.download,
        arch_fraction=recipe.arch_fraction,
        held_out_fraction=recipe.held_out_fraction,
        seed=recipe.split_seed,
        settings=recipe,
        folder=recipe.folder,
    )


def load_architecture(recipe: RetrainRecipe) -> Architecture:
    """Load the architecture of a recipe: from a file, or by the name of a published network or baseline.

    A named network takes the size and channels of the recipe, of the recipe's space, or of the data's images.

    Raises:
        ArchitectureError: There is no such file or name, or the file is not an architecture file.
        SpaceError: The recipe's space does not exist.
    """
    return _for_the_data(sources.load_architecture(recipe), recipe)


def _for_the_data(architecture: Architecture, recipe: RetrainRecipe) -> Architecture:
    """Return a network that was named without a space, for the size and channels of the data's images."""
    if recipe.architecture_file is not None or recipe.space is not None:
        return architecture
    if recipe.input_size and recipe.input_channels:
        return architecture
    directory = None if recipe.data_dir is None else recipe.resolve(recipe.data_dir)
    native = native_shape(Request(recipe.data, (3, 224, 224), directory, recipe.download, folder=recipe.folder))
    if native is not None:
        architecture = architecture.for_images(native[1:], native[0])
    return architecture.for_images(recipe.input_size, recipe.input_channels)


def run_retraining(
    prepared: PreparedRetraining,
    output: Path,
    report: RetrainReport | None = None,
    trial_parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a network, and write weights, model card, history, checkpoint and TensorBoard logs to a folder.

    If the folder holds the checkpoint of a retraining with the same recipe, that retraining was interrupted. It then
    continues with the epoch in which it was interrupted. Results of another retraining in the folder remain until the
    first epoch is finished. A checkpoint that cannot be used is renamed, and the retraining starts over.

    Args:
        prepared: Result of `prepare_retraining`.
        output: Folder of the results; it is created if missing, and no other process may use it during the training.
            `weights.pt` has the weights of the best epoch, and `weights_last.pt` those of the last one.
        report: Function that is called with each epoch's record and index, counted from 0, and at the end with the best
            record and `None`.
        trial_parameters: Parameters that NNI sent; they are stored in the model card.

    Returns:
        The content of `model_card.json`; empty in the processes of further devices, which write nothing.

    Raises:
        InputError: The accelerator is not available, another process uses the folder, or the folder holds the
            architecture itself, with the results of its search.
        RunError: The training failed, or a result cannot be written.
        Stopped: The process got SIGTERM or SIGHUP.
    """
    prepared.recipe.check_output(output)
    check_hardware(prepared.recipe)
    use_threads(prepared.recipe.threads)
    with contextlib.ExitStack() as stack:
        stack.enter_context(stopped_by_signals())
        stack.enter_context(own_processes(prepared.recipe.devices, prepared.recipe.num_nodes))
        if is_main_process():
            stack.enter_context(claimed(output))
            check_places(output)
        epochs, module = _train(prepared, output, report)
        if not is_main_process():
            return {}
        return _finish(prepared, output, epochs, module, report, trial_parameters)


def _train(
    prepared: PreparedRetraining, output: Path, report: RetrainReport | None
) -> tuple[RetrainEpochs, Retraining]:
    """Train the network, and return the callback with the history, and the trained module."""
    recipe = prepared.recipe
    keep_freed_memory()
    quiet_lightning()
    pl.seed_everything(recipe.seed)
    network = accelerate(prepared.architecture.build())
    if prepared.inherited is not None:
        load_into(network, {**network.state_dict(), **prepared.inherited})
    splits = prepared.splits
    loader = LateLoader(
        splits.training,
        batch_size=recipe.batch_size,
        num_workers=recipe.num_workers,
        shuffle=True,
        drop_last=True,
    )
    steps = math.ceil(len(splits.training) / recipe.ranks) // recipe.batch_size
    weights = class_weights(recipe.class_weights, splits.training_labels, splits.class_names)
    module = Retraining(recipe, steps, splits.num_classes, weights, prepared.teacher)
    module.set_model(network)
    checkpoint = output / results_folder.CHECKPOINT
    interrupted = is_interrupted(recipe, output, results_folder.NEEDED_BY_RETRAINING) and usable(
        checkpoint, partial(_check_checkpoint, module=module, weights=output / results_folder.WEIGHTS), "the retraining"
    )
    anew = not interrupted and is_main_process()

    def begin() -> None:
        write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))
        write_preprocessing(output, prepared.splits.preprocessing, prepared.splits.class_names)

    for text in data_warnings(prepared) if is_main_process() else ():
        _log.warning("%s", text)

    work_begins()
    with contextlib.ExitStack() as stack:
        replaced = stack.enter_context(replacing(output, begin)) if anew else lambda _: None
        if interrupted:
            finished = (output / results_folder.MODEL_CARD).is_file()
            _log.info(HAS_FINISHED if finished else GOES_ON, "retraining", output)
        epochs = RetrainEpochs(prepared, output, steps, report, replaced)
        several: Any = DDPStrategy(timeout=WAITING) if recipe.ranks > 1 else "auto"
        trainer = make_trainer(
            recipe, output, steps, epochs, strategy=several, gradient_clip_val=recipe.gradient_clip_val
        )
        start = checkpoint if interrupted else None
        with restoring(start, lambda: epochs.begun), helpers_ended(trainer), interruptions_raised():
            trainer.fit(module, loader, ckpt_path=None if start is None else str(start))
        if trainer.interrupted:  # Lightning returns as if the training had finished
            raise KeyboardInterrupt
    if not epochs.rows and is_main_process():
        raise RunError("the retraining ended without finishing an epoch")
    return epochs, module


def _check_checkpoint(path: Path, module: nn.Module, weights: Path) -> None:
    """Check that a file is the checkpoint of a retraining of this network, and that its best weights can be read."""
    state = read_checkpoint(path, STATE_KEY)["state_dict"]
    own = module.state_dict()
    if not isinstance(state, Mapping) or {key: value.shape for key, value in own.items()} != {
        key: getattr(value, "shape", None) for key, value in state.items()
    }:
        raise DamagedFileError(f"{path} is the checkpoint of another network")
    read_torch_file(weights)


def _finish(
    prepared: PreparedRetraining,
    output: Path,
    epochs: RetrainEpochs,
    module: Retraining,
    report: RetrainReport | None,
    trial_parameters: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Write the last weights, the model card and the architecture, and report the best epoch."""
    save_weights(epochs.evaluated(module), output / results_folder.WEIGHTS_LAST)
    card = model_card(
        prepared.recipe,
        prepared.architecture,
        prepared.splits,
        rows=epochs.rows,
        best=epochs.best,
        test=_test(prepared, output / results_folder.WEIGHTS),
        trial_parameters=trial_parameters,
        warnings=[*data_warnings(prepared), *prepared.notes],
    )
    write_json(output / results_folder.MODEL_CARD, card)
    prepared.architecture.save(output / results_folder.ARCHITECTURE)
    best = epochs.best_record
    _log.info("best in epoch %d: %s", epochs.best["epoch"], best.accuracies())
    if report:
        report(best, None)
    return card


def _test(prepared: PreparedRetraining, weights: Path) -> dict[str, Any] | None:
    """Accuracy of the best epoch's weights on the data set's own test part; `None` if it has none."""
    images = prepared.splits.test
    if images is None:
        return None
    network = prepared.architecture.build(pretrained=weights)
    found = evaluate(network, make_loader(prepared.recipe, images))
    unequal = differ_in_size(prepared.splits.training_labels)
    return {"images": len(images), **of_accuracies(found.top1, found.top5, found.balanced if unequal else None)}  # type: ignore[arg-type]


def data_warnings(prepared: PreparedRetraining) -> tuple[str, ...]:
    """Return what a user should know about a retraining with few images, or with small ones in a named network."""
    recipe, splits = prepared.recipe, prepared.splits
    steps = len(splits.training) // recipe.ranks // recipe.batch_size * recipe.epochs
    together = recipe.batch_size * recipe.ranks
    found = few_images_warnings(splits.training_labels, len(splits.held_out), together, steps, recipe.epochs)
    _, height, width = prepared.architecture.require_spec().input_shape
    if recipe.architecture_file is None and min(prepared.architecture.operators()[-1].input_shape[1:]) == 1:
        found += (
            f"{recipe.architecture} reduces images of {height} x {width} pixels to a height or width of 1 before "
            "pooling, so it is too deep for them; space=mobilenetv2_cifar gives MobileNetV2 stages for small images",
        )
    return found
