"""Training a found network: data that no search has learnt from judges it, and a model card says all of it.

SGD with Nesterov momentum, a cosine after a straight rise of the learning rate, label smoothing, no decay of norms and
biases, an exponential moving average of the weights, and for photographs mixup and cutmix.
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

from ..data.splits import DataSplits, load_splits
from ..errors import DataError, RunError
from ..files import write_atomically, write_csv, write_json, write_yaml
from ..network.architecture import Architecture
from ..network.catalogue import by_name
from ..network.space_spec import SpaceSpec
from ..network.weights import load_into, read_weights, save_weights
from ..process_memory import keep_freed_memory
from ..training.accuracy import Batch, accuracies
from ..training.cpu_kernels import accelerate
from ..training.image_classification import ImageClassification
from ..training.trainer import check_hardware, is_interrupted, make_trainer, seed_epoch, uses_channels_last
from .model_card import model_card
from .retrain_recipe import RetrainRecipe

_log = logging.getLogger(__name__)
EMA_WINDOW = 0.05  # of all steps, where the recipe does not say
MAX_EMA_DECAY = 0.9999


@dataclass(frozen=True)
class RetrainRecord:
    """What is known after an epoch; sent to NNI with exactly these keys.

    Attributes:
        default: Top-1 accuracy on the validation part, between 0 and 1.
        top5: Top-5 accuracy there.
        train_loss: Mean loss of the epoch's steps.
    """

    default: float
    top5: float
    train_loss: float

    def metrics(self) -> dict[str, float]:
        return asdict(self)


Report = Callable[[RetrainRecord, int | None], None]


@dataclass(frozen=True)
class PreparedRetraining:
    """A retraining whose input has been checked and loaded.

    Attributes:
        recipe: All settings.
        architecture: The network's architecture, with as many classes as the data have.
        splits: The data.
        inherited: The weights that it begins with, if any.
    """

    recipe: RetrainRecipe
    architecture: Architecture
    splits: DataSplits
    inherited: Mapping[str, Tensor] | None


def prepare_retraining(recipe: RetrainRecipe) -> PreparedRetraining:
    """Load and check everything a retraining needs.

    Raises:
        InputError: The architecture, its weights or the data are at fault.
    """
    architecture = load_architecture(recipe)
    spec = architecture.require_spec()
    splits = load_recipe_splits(recipe, spec)
    if spec.classes != splits.num_classes:
        _log.info("the architecture is of %d classes; it gets the data's %d", spec.classes, splits.num_classes)
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
    """The data of a recipe, split as the search has split them.

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
    """The architecture that a recipe names: a file's, or one known by its name.

    Raises:
        ArchitectureError: There is no such file or name, or the file is not one.
        SpaceError: The recipe's space does not exist.
    """
    if recipe.architecture_file is not None:
        return Architecture.load(recipe.architecture_file)
    like = None if recipe.space is None else SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
    return Architecture.of_space(*by_name(recipe.architecture, like))


def run_retraining(
    prepared: PreparedRetraining,
    output: Path,
    report: Report | None = None,
    trial_parameters: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, and leave weights, model card, history, checkpoint and TensorBoard logs in a folder.

    A folder that holds the checkpoint of a retraining with the same recipe is one that was interrupted: it goes on at
    the epoch it was in.

    Args:
        prepared: What `prepare_retraining` made.
        output: The folder; made if missing. `weights.pt` is the best epoch's, `weights_last.pt` the last one's.
        report: Called with each epoch's record and its number from 0, and at the end with the best one and None.
        trial_parameters: What NNI sent; kept in the model card.

    Returns:
        The model card, as it stands in `model_card.json`.

    Raises:
        InputError: The accelerator is not to be had.
        RunError: The training failed.
    """
    recipe, architecture = prepared.recipe, prepared.architecture
    check_hardware(recipe)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.ckpt"
    interrupted = is_interrupted(recipe, output, ("checkpoint.ckpt", "weights.pt"))
    if interrupted:
        _log.info("going on where the retraining in %s was interrupted", output)
    else:
        checkpoint.unlink(missing_ok=True)
        write_yaml(output / "recipe.yml", recipe.to_dict(absolute=True))
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
    if not epochs.rows:
        raise RunError("the retraining ended without finishing an epoch")
    save_weights(epochs.judged(module), output / "weights_last.pt")
    card = model_card(
        recipe,
        architecture,
        prepared.splits,
        rows=epochs.rows,
        best=epochs.best,
        test=_test(prepared, output / "weights.pt"),
        trial_parameters=trial_parameters,
    )
    write_json(output / "model_card.json", card)
    architecture.save(output / "architecture.json")
    best = epochs.best_record
    _log.info("best in epoch %d: top-1 %.4f, top-5 %.4f", epochs.best["epoch"], best.default, best.top5)
    if report:
        report(best, None)
    return card


class Retraining(ImageClassification):
    """The training of one network: mixtures of images where the recipe wants them."""

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
    """The recipe's decay, or the one whose average reaches back over a twentieth of the training."""
    if recipe.ema_decay is not None:
        return recipe.ema_decay
    return min(MAX_EMA_DECAY, max(0.0, 1.0 - 1.0 / (EMA_WINDOW * total_steps)))


class _Epochs(pl.Callback):
    """After each epoch: validate, keep the best weights, write history and checkpoint.

    Attributes:
        rows: The history.
        best: Its row of the best validation accuracy; of equals the first.
    """

    def __init__(self, prepared: PreparedRetraining, output: Path, steps: int, report: Report | None) -> None:
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

    def judged(self, module: Any) -> nn.Module:
        """The network that is validated and kept: the moving average, where there is one."""
        network = module.model if self._average is None else self._average.module
        assert isinstance(network, nn.Module)
        return network

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints hold of it."""
        return {"rows": self.rows, "average": None if self._average is None else self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the history of an interrupted retraining."""
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
            return  # Lightning's round through the epoch that a checkpoint was made after
        network = self.judged(module)
        top1, top5 = accuracies(network, self._validation, (1, 5))
        module.train()
        record = RetrainRecord(top1, top5, float(torch.stack(self._losses).mean()))
        epoch = trainer.current_epoch + 1
        seconds = round(time.monotonic() - self._started, 2)
        self.rows.append({"epoch": epoch, **record.metrics(), "seconds": seconds})
        if self.best is self.rows[-1]:
            save_weights(network, self._output / "weights.pt")
        write_csv(self._output / "history.csv", list(self.rows[0]), self.rows)
        write_atomically(self._output / "checkpoint.ckpt", trainer.save_checkpoint)
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
    """Accuracy of the best epoch on the data set's own test part, where it has one."""
    images = prepared.splits.test
    if images is None:
        return None
    network = prepared.architecture.build(pretrained=weights)
    top1, top5 = accuracies(network, _loader(prepared.recipe, images), (1, 5))
    return {"images": len(images), "top1": top1, "top5": top5}  # type: ignore[arg-type]


def _loader(recipe: RetrainRecipe, images: Any, **settings: Any) -> DataLoader[Any]:
    return DataLoader(images, batch_size=recipe.batch_size, num_workers=recipe.num_workers, **settings)
