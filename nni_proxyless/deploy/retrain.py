"""Retrains a found network, validates it on data that no search has learnt from, and writes a model card.

The training uses SGD with Nesterov momentum, a linear warm-up of the learning rate followed by a cosine decay, label
smoothing, no weight decay of normalisation parameters and biases, and an exponential moving average of the weights.
Mixup and cutmix are off by default.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor, nn
from torchvision.transforms import v2

from ..data.splits import DataSplits, load_splits
from ..errors import DamagedFileError, DataError, RunError
from ..files import results_folder
from ..files.claims import claimed
from ..files.writing import write_json, write_yaml
from ..network.architecture import Architecture
from ..network.catalogue import by_name
from ..network.space_spec import SpaceSpec
from ..network.torch_file import read_torch_file
from ..network.weights import load_into, read_weights, save_weights
from ..process_memory import keep_freed_memory
from ..search.earlier import replacing
from ..signals import stopped_by_signals
from ..training.accuracy import Batch, accuracies
from ..training.cpu_kernels import accelerate
from ..training.image_classification import ImageClassification
from ..training.ranks import own_processes
from ..training.resume import is_interrupted, read_checkpoint, restoring, usable
from ..training.trainer import check_hardware, make_trainer, use_threads, uses_channels_last
from .model_card import model_card
from .retrain_epochs import STATE_KEY, PreparedRetraining, RetrainEpochs, RetrainReport, make_loader
from .retrain_epochs import RetrainRecord as RetrainRecord
from .retrain_epochs import ema_decay as ema_decay
from .retrain_recipe import RetrainRecipe

_log = logging.getLogger(__name__)


def prepare_retraining(recipe: RetrainRecipe) -> PreparedRetraining:
    """Load and check the input of a retraining.

    Raises:
        InputError: The architecture, its weights or the data are invalid.
    """
    architecture = load_architecture(recipe)
    spec = architecture.require_spec()
    splits = load_recipe_splits(recipe, spec)
    if spec.classes != splits.num_classes:
        _log.info("the architecture has %d classes; using the data's %d", spec.classes, splits.num_classes)
        changed = spec.with_changes(classes=splits.num_classes)
        architecture = replace(architecture, spec=changed, space_hash=changed.content_hash)
    if len(splits.training) < recipe.batch_size:
        raise DataError(
            f"batch_size {recipe.batch_size} is larger than the training part of the data ({len(splits.training)} "
            "images); choose a smaller one"
        )
    inherited = None
    if recipe.inherit is not None:
        inherited = read_weights(recipe.resolve(recipe.inherit))
        load_into(architecture.build(), inherited)
    return PreparedRetraining(recipe, architecture, splits, inherited)


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
    )


def load_architecture(recipe: RetrainRecipe) -> Architecture:
    """Load the architecture of a recipe: from a file, or by the name of a published network or baseline.

    Raises:
        ArchitectureError: There is no such file or name, or the file is not an architecture file.
        SpaceError: The recipe's space does not exist.
    """
    if recipe.architecture_file is not None:
        return Architecture.load(recipe.architecture_file)
    like = None if recipe.space is None else SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
    return Architecture.of_space(*by_name(recipe.architecture, like))


def run_retraining(
    prepared: PreparedRetraining,
    output: Path,
    report: RetrainReport | None = None,
    trial_parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a network, and write weights, model card, history, checkpoint and TensorBoard logs to a folder.

    If the folder holds the checkpoint of a retraining with the same recipe, that retraining was interrupted. It then
    continues with the epoch in which it was interrupted. Results of another retraining in the folder remain until the
    first epoch is finished. A checkpoint that cannot be used is renamed, and the retraining begins anew.

    Args:
        prepared: Result of `prepare_retraining`.
        output: Folder of the results; it is made if missing, and no other process may use it meanwhile. `weights.pt`
            holds the weights of the best epoch, `weights_last.pt` those of the last one.
        report: Function that is called with each epoch's record and index, counted from 0, and at the end with the best
            record and `None`.
        trial_parameters: Parameters that NNI sent; they are stored in the model card.

    Returns:
        The content of `model_card.json`.

    Raises:
        InputError: The accelerator is not available, another process uses the folder, or the folder holds the
            architecture itself, with the results of its search.
        RunError: The training failed, or a result cannot be written.
        Stopped: The process got SIGTERM or SIGHUP.
    """
    prepared.recipe.check_output(output)
    check_hardware(prepared.recipe)
    use_threads(prepared.recipe.threads)
    with stopped_by_signals(), own_processes(), claimed(output):
        epochs, module = _train(prepared, output, report)
        return _finish(prepared, output, epochs, module, report, trial_parameters)


def _train(
    prepared: PreparedRetraining, output: Path, report: RetrainReport | None
) -> tuple[RetrainEpochs, Retraining]:
    """Train the network, and return the callback with the history, and the trained module."""
    recipe = prepared.recipe
    keep_freed_memory()
    pl.seed_everything(recipe.seed)
    network = accelerate(prepared.architecture.build())
    if prepared.inherited is not None:
        load_into(network, prepared.inherited)
    loader = make_loader(recipe, prepared.splits.training, shuffle=True, drop_last=True)
    module = Retraining(recipe, len(loader), prepared.architecture.require_spec().classes)
    module.set_model(network)
    checkpoint = output / results_folder.CHECKPOINT
    interrupted = is_interrupted(recipe, output, (checkpoint.name, results_folder.WEIGHTS)) and usable(
        checkpoint, partial(_check_checkpoint, module=module, weights=output / results_folder.WEIGHTS), "the retraining"
    )

    def begin() -> None:
        write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))

    with contextlib.ExitStack() as stack:
        replaced = (lambda _: None) if interrupted else stack.enter_context(replacing(output, begin))
        if interrupted:
            _log.info("resuming where the retraining in %s was interrupted", output)
        epochs = RetrainEpochs(prepared, output, len(loader), report, replaced)
        trainer = make_trainer(recipe, output, len(loader), epochs, gradient_clip_val=recipe.gradient_clip_val)
        start = checkpoint if interrupted else None
        with restoring(start, lambda: epochs.begun):
            trainer.fit(module, loader, ckpt_path=None if start is None else str(start))
        if trainer.interrupted:  # Lightning returns as if the training had finished
            raise KeyboardInterrupt
    if not epochs.rows:
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
    )
    write_json(output / results_folder.MODEL_CARD, card)
    prepared.architecture.save(output / results_folder.ARCHITECTURE)
    best = epochs.best_record
    _log.info("best in epoch %d: top-1 %.4f, top-5 %.4f", epochs.best["epoch"], best.default, best.top5)
    if report:
        report(best, None)
    return card


class Retraining(ImageClassification):
    """Lightning module that trains one network, with mixup and cutmix where the recipe sets them."""

    def __init__(self, recipe: RetrainRecipe, steps_per_epoch: int, classes: int) -> None:
        super().__init__(
            learning_rate=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            decay_norm_bias=recipe.decay_norm_bias,
            label_smoothing=recipe.label_smoothing,
            total_steps=steps_per_epoch * recipe.epochs,
            warmup_steps=steps_per_epoch * recipe.warmup_epochs,
            channels_last=uses_channels_last(recipe),
        )
        mixtures: list[Any] = []
        if recipe.mixup_alpha:
            mixtures.append(v2.MixUp(alpha=recipe.mixup_alpha, num_classes=classes))
        if recipe.cutmix_alpha:
            mixtures.append(v2.CutMix(alpha=recipe.cutmix_alpha, num_classes=classes))
        self._mix = v2.RandomChoice(mixtures) if mixtures else None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels = batch
        return super().training_step((images, labels) if self._mix is None else self._mix(images, labels), batch_idx)


def _test(prepared: PreparedRetraining, weights: Path) -> dict[str, Any] | None:
    """Accuracy of the best epoch's weights on the data set's own test part; `None` if it has none."""
    images = prepared.splits.test
    if images is None:
        return None
    network = prepared.architecture.build(pretrained=weights)
    top1, top5 = accuracies(network, make_loader(prepared.recipe, images), (1, 5))
    return {"images": len(images), "top1": top1, "top5": top5}  # type: ignore[arg-type]
