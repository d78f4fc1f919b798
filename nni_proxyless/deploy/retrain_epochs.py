"""Callback of a retraining that validates after each epoch, and writes the results.

A crash loses at most the current epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..data.class_sizes import differ_in_size
from ..data.splits import DataSplits
from ..errors import RunError
from ..files import results_folder
from ..files.writing import write_atomically, write_csv
from ..network.architecture import Architecture
from ..network.weights import save_weights
from ..search.earlier import Begin
from ..training.accuracy import Accuracies, evaluate
from ..training.ranks import check_same_start
from ..training.trainer import seed_epoch, training_bytes
from ..values import finite_only, not_finite_warning
from .retrain_recipe import RetrainRecipe

_log = logging.getLogger(__name__)
EMA_WINDOW = 0.05  # default time constant of the moving average, as a fraction of all steps
MAX_EMA_DECAY = 0.9999
STATE_KEY = "_Epochs"  # of the callback's state in checkpoints, as in version 0.1


@dataclass(frozen=True)
class PreparedRetraining:
    """The checked and loaded input of a retraining.

    Attributes:
        recipe: Settings of the retraining.
        architecture: Architecture of the network, with the number of classes of the data.
        splits: Data to train and validate on.
        inherited: State dict of the initial weights, possibly without the classifier; `None` to train from scratch.
        teacher: Larger network whose outputs are learnt as well, in evaluation mode; `None` for none.
        notes: Notes on the initial weights for the model card.
    """

    recipe: RetrainRecipe
    architecture: Architecture
    splits: DataSplits
    inherited: Mapping[str, Tensor] | None
    teacher: nn.Module | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class RetrainRecord:
    """Metrics of one epoch; exactly these keys are sent to NNI.

    Attributes:
        default: Top-1 accuracy on the held-out images, between 0 and 1.
        top5: Top-5 accuracy on the held-out images, between 0 and 1; `None` up to ten classes.
        train_loss: Mean loss of the epoch's training steps.
        balanced_accuracy: Mean of the classes' accuracies, between 0 and 1; `None` if they hardly differ in size.
    """

    default: float
    top5: float | None
    train_loss: float
    balanced_accuracy: float | None = None

    @classmethod
    def of(cls, found: Accuracies, train_loss: float, unequal: bool) -> RetrainRecord:
        """Make a record of accuracies on held-out images, whose classes may differ in size."""
        return cls(found.top1, found.top5, train_loss, found.balanced if unequal else None)

    def known(self) -> dict[str, float]:
        """Return all metrics of the retraining, including those that are not finite."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def metrics(self) -> dict[str, float]:
        """Return the metrics that are sent to NNI: the finite ones. The mean of finite losses may be infinite."""
        return finite_only(self.known())

    def accuracies(self) -> str:
        """Return the accuracies as a text."""
        named = {"top-1": self.default, "balanced": self.balanced_accuracy, "top-5": self.top5}
        return ", ".join(f"{name} {value:.4f}" for name, value in named.items() if value is not None)


RetrainReport = Callable[[RetrainRecord, int | None], None]


def ema_decay(recipe: RetrainRecipe, total_steps: int) -> float:
    """Decay of the moving average in each step: the recipe's, or by default one derived from `EMA_WINDOW`."""
    if recipe.ema_decay is not None:
        return recipe.ema_decay
    return min(MAX_EMA_DECAY, max(0.0, 1.0 - 1.0 / (EMA_WINDOW * total_steps)))


class RetrainEpochs(pl.Callback):
    """Lightning callback that validates after each epoch, keeps the best weights, and writes history and checkpoint.

    Args:
        prepared: Checked and loaded input of the retraining.
        output: Folder of the results.
        steps: Number of steps of an epoch.
        report: Function that is called with each epoch's record and index, counted from 0.
        begin: Function that is called before the results of the first epoch are written (`replacing`).

    Attributes:
        begun: Whether the training has begun, after the state of a checkpoint has been restored.
        rows: Training history, with a row for each epoch.
        best: Row with the best validation accuracy; the first one if several are equal.
    """

    def __init__(
        self,
        prepared: PreparedRetraining,
        output: Path,
        steps: int,
        report: RetrainReport | None,
        begin: Begin,
    ) -> None:
        self._recipe = prepared.recipe
        self._output = output
        self._report = report
        self._begin = begin
        self._validation = make_loader(prepared.recipe, prepared.splits.held_out)
        self._unequal = differ_in_size(prepared.splits.held_out_labels)
        self._decay = ema_decay(prepared.recipe, steps * prepared.recipe.epochs)
        self._average: AveragedModel | None = None
        self._restored: dict[str, Any] | None = None
        self._losses: list[Tensor] = []
        self._started = time.monotonic()
        self.begun = False
        self.rows: list[dict[str, Any]] = []

    @property
    def best(self) -> dict[str, Any]:
        return max(self.rows, key=lambda row: row["default"])

    @property
    def best_record(self) -> RetrainRecord:
        best = self.best
        return RetrainRecord(best["default"], best.get("top5"), best["train_loss"], best.get("balanced_accuracy"))

    def evaluated(self, module: Any) -> nn.Module:
        """The network that is validated and saved: the moving average of the weights, if there is one."""
        if self._average is None:
            self._make_average(module)  # a retraining that is resumed after its last epoch takes no step
        network = module.model if self._average is None else self._average.module
        assert isinstance(network, nn.Module)
        return network

    @property
    def state_key(self) -> str:
        """Key of the callback's state in Lightning's checkpoints."""
        return STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        """The callback's state in checkpoints."""
        return {"rows": self.rows, "average": None if self._average is None else self._average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of an interrupted retraining."""
        self.rows = list(state["rows"])
        self._started -= self.rows[-1]["seconds"]
        self._restored = state["average"]

    def on_train_start(self, trainer: Any, module: Any) -> None:
        check_same_start(trainer)
        self._make_average(module)
        self.begun = True

    def _make_average(self, module: Any) -> None:
        """Make the moving average of the weights, if the recipe wants one. It begins as in the checkpoint."""
        if self._decay > 0:
            averaging = get_ema_multi_avg_fn(self._decay)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(module.model, multi_avg_fn=averaging, use_buffers=True)
            if self._restored is not None:
                self._average.load_state_dict(self._restored)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._losses = []
        seed_epoch(self._recipe.seed, trainer.current_epoch, trainer.global_rank)

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
        loss = float(trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean"))
        if trainer.is_global_zero:
            self._record(trainer, module, loss)
        else:
            trainer.save_checkpoint("not written by this rank")

    def _record(self, trainer: Any, module: Any, loss: float) -> None:
        """Validate the network, and write and report the results of an epoch."""
        network = self.evaluated(module)
        found = evaluate(network, self._validation)
        module.train()
        record = RetrainRecord.of(found, loss, self._unequal)
        epoch = trainer.current_epoch + 1
        seconds = round(time.monotonic() - self._started, 2)
        self._begin(training_bytes(module))
        if (left_out := not_finite_warning(record.known())) is not None:
            _log.warning("epoch %d: %s", epoch, left_out)
        self.rows.append({"epoch": epoch, **record.known(), "seconds": seconds})
        if self.best is self.rows[-1]:
            save_weights(network, self._output / results_folder.WEIGHTS)
        columns = list(dict.fromkeys(key for row in self.rows for key in row))  # version 0.1 always had top5
        write_csv(self._output / results_folder.HISTORY, columns, self.rows)
        write_atomically(self._output / results_folder.CHECKPOINT, trainer.save_checkpoint)
        logged = {
            "val/top1": record.default, "val/top5": record.top5, "val/balanced": record.balanced_accuracy,
            "train/loss": record.train_loss,
        }  # fmt: skip
        for name, value in logged.items():
            if value is not None:
                trainer.logger.experiment.add_scalar(name, value, epoch)
        trainer.logger.experiment.flush()
        _log.info(
            "epoch %d/%d: %s, loss %.4f, %.0f s",
            epoch, trainer.max_epochs, record.accuracies(), record.train_loss, seconds,
        )  # fmt: skip
        if self._report:
            self._report(record, len(self.rows) - 1)


def make_loader(recipe: RetrainRecipe, images: Any, **settings: Any) -> DataLoader[Any]:
    """Make a loader of images with the batch size and the processes of a recipe."""
    return DataLoader(images, batch_size=recipe.batch_size, num_workers=recipe.num_workers, **settings)
