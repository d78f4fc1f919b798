"""One search from a recipe: data, supernet, NNI strategy, validation after each epoch, files.

The same function serves `nni-proxyless search` and the trials of NNI's manager; they differ in where the records
go.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.loggers import TensorBoardLogger

from .architecture import Architecture
from .data import DataSplits, load_splits
from .errors import DataError, RunError
from .evaluator import ImageClassification, accuracy, reestimate_batch_norm
from .files import write_atomically, write_csv, write_yaml
from .latency import LatencyTable
from .operators import Network
from .recipe import Recipe
from .space import MobileNetV2Space
from .space_spec import SpaceSpec
from .strategy import ProxylessNAS
from .supernet import decoded_state
from .targets import Target

_log = logging.getLogger(__name__)
Report = Callable[["Record", bool], None]


@dataclass(frozen=True)
class Record:
    """What is known after an epoch; sent to NNI with exactly these keys.

    Attributes:
        default: Accuracy of the decoded network on the held-out part, between 0 and 1.
        latency_ms: Latency of the decoded network by the table, in milliseconds.
        expected_latency_ms: E[latency] of the distribution, in milliseconds.
        entropy: Mean entropy of the layers, in nats.
        train_loss: Mean loss of the epoch's weight steps.
    """

    default: float
    latency_ms: float
    expected_latency_ms: float
    entropy: float
    train_loss: float


@dataclass(frozen=True)
class Prepared:
    """A search whose input has been checked and loaded, before anything is trained.

    Attributes:
        recipe: All settings.
        target: The hardware target.
        spec: The space, with the data's number of classes.
        table: The target's latency table.
        splits: The data.
    """

    recipe: Recipe
    target: Target
    spec: SpaceSpec
    table: LatencyTable
    splits: DataSplits


def prepare(recipe: Recipe) -> Prepared:
    """Load and check everything a search needs; writes nothing but a newly measured table.

    Raises:
        InputError: The space, the data, the target or its table is at fault.
    """
    target = recipe.chosen_target()
    spec, splits = load_recipe_data(recipe)
    for part in ("weights", "architecture"):
        if len(getattr(splits, part)) < recipe.batch_size:
            raise DataError(
                f"batch_size {recipe.batch_size} is larger than the {part} part of the data "
                f"({len(getattr(splits, part))} images); choose a smaller one"
            )
    table = target.latency_table(spec)
    table.costs(spec)
    return Prepared(recipe, target, spec, table, splits)


def load_recipe_data(recipe: Recipe) -> tuple[SpaceSpec, DataSplits]:
    """The space that a recipe names, with as many classes as its data have, and the data.

    Raises:
        SpaceError: There is no such space, or it is not well formed.
        DataError: The data set does not exist, its folder is missing or empty, or it is too small.
    """
    spec = SpaceSpec.from_yaml(recipe.space, Path(recipe.folder))
    spec = spec.with_changes(width_mult=recipe.width_mult, input_size=recipe.input_size)
    splits = load_splits(
        recipe.data,
        spec.input_shape,
        data_dir=None if recipe.data_dir is None else recipe.resolve(recipe.data_dir),
        download=recipe.download,
        arch_fraction=recipe.arch_fraction,
        held_out_fraction=recipe.held_out_fraction,
        seed=recipe.seed,
    )
    return spec.with_changes(classes=splits.num_classes), splits


def run_search(
    prepared: Prepared,
    output: Path,
    report: Report | None = None,
    trial_parameters: Mapping[str, Any] | None = None,
) -> Architecture:
    """Search, and leave `architecture.json`, `history.csv`, table, checkpoint and TensorBoard logs in a folder.

    Args:
        prepared: What `prepare` made.
        output: The folder; made if missing.
        report: Called with each epoch's record and False, and with the last one and True.
        trial_parameters: What NNI sent; kept in the architecture file.

    Returns:
        The architecture, with predicted and, where the target is this machine, measured latency.
    """
    recipe, spec = prepared.recipe, prepared.spec
    output.mkdir(parents=True, exist_ok=True)
    write_yaml(output / "recipe.yml", recipe.to_dict(absolute=True))
    prepared.table.save(output / "latency_table.yml")
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    _quiet_lightning()
    pl.seed_everything(recipe.seed)
    loaders = _loaders(recipe, prepared.splits)
    strategy = make_strategy(recipe, prepared.table)
    steps_per_epoch = max(len(loaders["weights"]), len(loaders["architecture"]))
    recorder = _Recorder(prepared, strategy, output, report)
    trainer = Trainer(
        max_epochs=recipe.epochs,
        accelerator=recipe.accelerator,
        devices=1,
        logger=TensorBoardLogger(str(output), name="tensorboard", version=""),
        callbacks=[recorder],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
        num_sanity_val_steps=0,
        log_every_n_steps=min(50, steps_per_epoch),
    )
    module = ImageClassification(
        learning_rate=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        label_smoothing=recipe.label_smoothing,
        total_steps=steps_per_epoch * recipe.epochs,
    )
    evaluator = Lightning(
        module, trainer, train_dataloaders=loaders["weights"], val_dataloaders=loaders["architecture"]
    )
    space = RawFormatModelSpace.from_model(MobileNetV2Space(spec), evaluator)
    strategy(space, SequentialExecutionEngine())
    if recorder.last is None:
        raise RunError("the search ended without finishing an epoch")
    architecture, network = recorder.decode()
    measured = prepared.target.measure(architecture)
    architecture = replace(
        architecture,
        measured_latency_ms=measured,
        metrics=asdict(recorder.last),
        trial_parameters=dict(trial_parameters or {}),
    )
    write_atomically(output / "weights.pt", lambda path: torch.save(network.cpu().state_dict(), path))
    architecture.save(output / "architecture.json")
    _log.info(
        "%s: accuracy %.4f, predicted %.3f ms, measured %s",
        prepared.target.name, recorder.last.default, recorder.last.latency_ms,
        "on another device" if measured is None else f"{measured:.3f} ms",
    )  # fmt: skip
    if report:
        report(recorder.last, True)
    return architecture


def make_strategy(recipe: Recipe, table: LatencyTable) -> ProxylessNAS:
    """The NNI strategy that a recipe asks for."""
    return ProxylessNAS(
        latency=table,
        budget_ms=recipe.budget_ms,
        objective=recipe.objective,
        latency_weight=recipe.latency_weight,
        arch_gradient=recipe.arch_gradient,
        arch_learning_rate=recipe.arch_learning_rate,
        arch_update_every=recipe.arch_update_every,
        warmup_epochs=recipe.warmup_epochs,
        gradient_clip_val=recipe.gradient_clip_val,
        seed=recipe.seed,
    )


def _quiet_lightning() -> None:
    """Lightning's and NNI's notices that say nothing of this search; importing Lightning resets its level."""
    for name in ("lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("nni.nas.evaluator.pytorch.lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", module="pytorch_lightning")


def _loaders(recipe: Recipe, splits: DataSplits) -> dict[str, Any]:
    common = {"batch_size": recipe.batch_size, "num_workers": recipe.num_workers}
    return {
        "weights": DataLoader(splits.weights, shuffle=True, drop_last=True, **common),
        "architecture": DataLoader(splits.architecture, shuffle=True, drop_last=True, **common),
    }


class _Recorder(pl.Callback):
    """After each epoch: decode, validate, report, write. A crash loses at most the epoch in progress."""

    def __init__(self, prepared: Prepared, strategy: ProxylessNAS, output: Path, report: Report | None) -> None:
        self._prepared = prepared
        self._strategy = strategy
        self._output = output
        self._report = report
        self._rows: list[dict[str, Any]] = []
        self._losses: list[torch.Tensor] = []
        self._started = time.monotonic()
        self.last: Record | None = None
        recipe, splits = prepared.recipe, prepared.splits
        common = {"batch_size": recipe.batch_size, "num_workers": recipe.num_workers}
        # A seed of its own: validation must not change the order in which the search sees its images.
        self._statistics = DataLoader(
            splits.statistics,
            shuffle=True,
            drop_last=True,
            generator=torch.Generator().manual_seed(recipe.seed),
            **common,
        )
        self._held_out = DataLoader(splits.held_out, **common)

    def decode(self) -> tuple[Architecture, Network]:
        """The present architecture and a network of its own, with the supernet's weights."""
        architecture = self._strategy.export_architecture(
            target=self._prepared.target.name, seed=self._prepared.recipe.seed
        )
        network = architecture.build()
        network.load_state_dict(decoded_state(self._strategy.supernet, architecture.choices))
        device = next(self._strategy.supernet.parameters()).device
        network = network.to(device).to(memory_format=torch.channels_last)
        batches = min(self._prepared.recipe.bn_batches, len(self._statistics))
        self._statistics.generator.manual_seed(self._prepared.recipe.seed)
        reestimate_batch_norm(network, itertools.islice(self._statistics, batches))
        return architecture, network

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._losses = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self._losses.append(outputs["loss"])

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        architecture, network = self.decode()
        loss = float(torch.stack(self._losses).mean())
        assert architecture.predicted_latency_ms is not None
        expected = module.expected_latency_ms()
        assert expected is not None
        record = Record(
            default=accuracy(network, self._held_out),
            latency_ms=architecture.predicted_latency_ms,
            expected_latency_ms=expected,
            entropy=module.mean_entropy(),
            train_loss=loss,
        )
        self.last = record
        epoch = trainer.current_epoch + 1
        seconds = round(time.monotonic() - self._started, 2)
        self._rows.append({"epoch": epoch, **asdict(record), "seconds": seconds})
        write_csv(self._output / "history.csv", list(self._rows[0]), self._rows)
        for name, value in asdict(record).items():
            key = "val/accuracy" if name == "default" else f"search/{name}"
            trainer.logger.experiment.add_scalar(key, value, epoch)
        trainer.logger.experiment.flush()
        write_atomically(self._output / "checkpoint.ckpt", lambda path: trainer.save_checkpoint(path))
        _log.info(
            "epoch %d/%d: accuracy %.4f, latency %.3f ms (expected %.3f), entropy %.3f, loss %.4f, %.0f s",
            epoch, trainer.max_epochs, record.default, record.latency_ms, record.expected_latency_ms,
            record.entropy, record.train_loss, seconds,
        )  # fmt: skip
        if self._report:
            self._report(record, False)
