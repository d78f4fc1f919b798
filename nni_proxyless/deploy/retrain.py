"""Retrains a found network, validates it on data that no search has learnt from, and writes a model card.

The training uses SGD with Nesterov momentum, a linear warm-up of the learning rate followed by a cosine decay, label
smoothing, no weight decay of normalisation parameters and biases, and an exponential moving average of the weights.
Mixup and cutmix are off by default.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from .. import results_folder
from ..data.splits import DataSplits, load_splits
from ..errors import DataError, RunError
from ..files import write_atomically, write_csv, write_json, write_yaml
from ..network.architecture import Architecture
from ..network.catalogue import by_name
from ..network.space_spec import SpaceSpec
from ..network.weights import load_into, read_weights, save_weights
from ..process_memory import keep_freed_memory
from ..search.earlier import remove_earlier
from ..training.accuracy import Batch, accuracies
from ..training.cpu_kernels import accelerate
from ..training.image_classification import ImageClassification
from ..training.trainer import check_hardware, is_interrupted, make_trainer, seed_epoch, uses_channels_last
from .model_card import model_card
from .retrain_recipe import RetrainRecipe

_log = logging.getLogger(__name__)
EMA_WINDOW = 0.05  # default time constant of the moving average, as a fraction of all steps
MAX_EMA_DECAY = 0.9999


@dataclass(frozen=True)
class RetrainRecord:
    """Metrics of one epoch; exactly these keys are sent to NNI.

    Attributes:
        default: Top-1 accuracy on the held-out images, between 0 and 1.
        top5: Top-5 accuracy on the held-out images, between 0 and 1.
        train_loss: Mean loss of the epoch's training steps.
    """

    default: float
    top5: float
    train_loss: float

    def metrics(self) -> dict[str, float]:
        return asdict(self)


RetrainReport = Callable[[RetrainRecord, int | None], None]


@dataclass(frozen=True)
class PreparedRetraining:
    """The checked and loaded input of a retraining.

    Attributes:
        recipe: Settings of the retraining.
        architecture: Architecture of the network, with the number of classes of the data.
        splits: Data to train and validate on.
        inherited: State dict of the initial weights; `None` to train from scratch.
    """

    recipe: RetrainRecipe
    architecture: Architecture
    splits: DataSplits
    inherited: Mapping[str, Tensor] | None


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
    continues with the epoch in which it was interrupted.

    Args:
        prepared: Result of `prepare_retraining`.
        output: Folder of the results; it is made if missing. `weights.pt` holds the weights of the best epoch,
            `weights_last.pt` those of the last one.
        report: Function that is called with each epoch's record and index, counted from 0, and at the end with the best
            record and `None`.
        trial_parameters: Parameters that NNI sent; they are stored in the model card.

    Returns:
        The content of `model_card.json`.

    Raises:
        InputError: The accelerator is not available.
        RunError: The training failed.
    """
    recipe, architecture = prepared.recipe, prepared.architecture
    check_hardware(recipe)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / results_folder.CHECKPOINT
    interrupted = is_interrupted(recipe, output, (results_folder.CHECKPOINT, results_folder.WEIGHTS))
    if interrupted:
        _log.info("going on where the retraining in %s was interrupted", output)
    else:
        remove_earlier(output)
        write_yaml(output / results_folder.RECIPE, recipe.to_dict(absolute=True))
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    pl.seed_everything(recipe.seed)
    network = accelerate(architecture.build())
    if prepared.inherited is not None:
        load_into(network, prepared.inherited)
    loader = _loader(recipe, prepared.splits.training, shuffle=True, drop_last=True)
    epochs = _Epochs(prepared, output, len(loader), report)
    trainer = make_trainer(recipe, output, len(loader), epochs, gradient_clip_val=recipe.gradient_clip_val)
    module = Retraining(recipe, len(loader), architecture.require_spec().classes)
    module.set_model(network)
    trainer.fit(module, loader, ckpt_path=str(checkpoint) if interrupted else None)
    if trainer.interrupted:  # Lightning returns as if the training had finished
        raise KeyboardInterrupt
    if not epochs.rows:
        raise RunError("the retraining ended without finishing an epoch")
    save_weights(epochs.evaluated(module), output / results_folder.WEIGHTS_LAST)
    card = model_card(
        recipe,
        architecture,
        prepared.splits,
        rows=epochs.rows,
        best=epochs.best,
        test=_test(prepared, output / results_folder.WEIGHTS),
        trial_parameters=trial_parameters,
    )
    write_json(output / results_folder.MODEL_CARD, card)
    architecture.save(output / results_folder.ARCHITECTURE)
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


def ema_decay(recipe: RetrainRecipe, total_steps: int) -> float:
    """Decay of the moving average in each step: the recipe's, or by default one derived from `EMA_WINDOW`."""
    if recipe.ema_decay is not None:
        return recipe.ema_decay
    return min(MAX_EMA_DECAY, max(0.0, 1.0 - 1.0 / (EMA_WINDOW * total_steps)))


class _Epochs(pl.Callback):
    """Lightning callback that validates after each epoch, keeps the best weights, and writes history and checkpoint.

    Attributes:
        rows: Training history, with a row for each epoch.
        best: Row with the best validation accuracy; the first one if several are equal.
    """

    def __init__(self, prepared: PreparedRetraining, output: Path, steps: int, report: RetrainReport | None) -> None:
        self._recipe = prepared.recipe
        self._output = output
        self._report = report
        self._validation = _loader(prepared.recipe, prepared.splits.held_out)
        self._decay = ema_decay(prepared.recipe, steps * prepared.recipe.epochs)
        self._average: AveragedModel | None = None
        self._restored: dict[str, Any] | None = None
        self._losses: list[Tensor] = []
        self._started = time.monotonic()
        self.rows: list[dict[str, Any]] = []

    @property
    def best(self) -> dict[str, Any]:
        return max(self.rows, key=lambda row: row["default"])

    @property
    def best_record(self) -> RetrainRecord:
        return RetrainRecord(**{key: self.best[key] for key in ("default", "top5", "train_loss")})

    def evaluated(self, module: Any) -> nn.Module:
        """The network that is validated and saved: the moving average of the weights, if there is one."""
        network = module.model if self._average is None else self._average.module
        assert isinstance(network, nn.Module)
        return network

    def state_dict(self) -> dict[str, Any]:
        """The callback's state in checkpoints."""
        return {"rows": self.rows, "average": None if self._average is None else self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an interrupted retraining."""
        self.rows = list(state["rows"])
        self._started -= self.rows[-1]["seconds"]
        self._restored = state["average"]

    def on_train_start(self, trainer: Any, module: Any) -> None:
        if self._decay > 0:
            averaging = get_ema_multi_avg_fn(self._decay)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(module.model, multi_avg_fn=averaging, use_buffers=True)
            if self._restored is not None:
                self._average.load_state_dict(self._restored)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._losses = []
        seed_epoch(self._recipe.seed, trainer.current_epoch)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        loss = outputs["loss"].detach()
        if not bool(torch.isfinite(loss)):
            raise RunError(
                f"the loss became {loss.item()} in epoch {trainer.current_epoch + 1}, step {index + 1}; lower the "
                "learning rate or set gradient_clip_val"
            )
        self._losses.append(loss)
        if self._average is not None:
            self._average.update_parameters(module.model)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not self._losses:
            return  # after a resume, Lightning first ends the checkpoint's epoch once more, without a step
        network = self.evaluated(module)
        top1, top5 = accuracies(network, self._validation, (1, 5))
        module.train()
        record = RetrainRecord(top1, top5, float(torch.stack(self._losses).mean()))
        epoch = trainer.current_epoch + 1
        seconds = round(time.monotonic() - self._started, 2)
        self.rows.append({"epoch": epoch, **record.metrics(), "seconds": seconds})
        if self.best is self.rows[-1]:
            save_weights(network, self._output / results_folder.WEIGHTS)
        write_csv(self._output / results_folder.HISTORY, list(self.rows[0]), self.rows)
        write_atomically(self._output / results_folder.CHECKPOINT, trainer.save_checkpoint)
        for name, value in {"val/top1": top1, "val/top5": top5, "train/loss": record.train_loss}.items():
            trainer.logger.experiment.add_scalar(name, value, epoch)
        trainer.logger.experiment.flush()
        _log.info(
            "epoch %d/%d: top-1 %.4f, top-5 %.4f, loss %.4f, %.0f s",
            epoch, trainer.max_epochs, top1, top5, record.train_loss, seconds,
        )  # fmt: skip
        if self._report:
            self._report(record, len(self.rows) - 1)


def _test(prepared: PreparedRetraining, weights: Path) -> dict[str, Any] | None:
    """Accuracy of the best epoch's weights on the data set's own test part; `None` if it has none."""
    images = prepared.splits.test
    if images is None:
        return None
    network = prepared.architecture.build(pretrained=weights)
    top1, top5 = accuracies(network, _loader(prepared.recipe, images), (1, 5))
    return {"images": len(images), "top1": top1, "top5": top5}  # type: ignore[arg-type]


def _loader(recipe: RetrainRecipe, images: Any, **settings: Any) -> DataLoader[Any]:
    return DataLoader(images, batch_size=recipe.batch_size, num_workers=recipe.num_workers, **settings)
