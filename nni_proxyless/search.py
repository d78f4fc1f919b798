"""One search from a recipe: data, supernet, NNI strategy, validation after each epoch, files.

The same function serves `nni-proxyless search` and the trials of NNI's manager; they differ in where the records
go.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace

from .architecture import Architecture
from .data import DataSplits, load_splits
from .errors import DataError, RunError
from .evaluator import ImageClassification, accuracy, reestimate_batch_norm
from .files import write_atomically, write_csv, write_json, write_yaml
from .latency import LatencyTable, this_device
from .latency_aware import LatencyAwareStrategy
from .operators import Network
from .parallel import PathParallelStrategy, share_buffers
from .process_memory import keep_freed_memory, peak_memory_mib
from .recipe import Recipe
from .search_checkpoint import CHECKPOINT_KEY
from .space import MobileNetV2Space
from .space_spec import SpaceSpec
from .strategies import make_strategy
from .supernet import decoded_state
from .targets import Target
from .training import check_hardware, is_interrupted, make_trainer, seed_epoch, uses_channels_last
from .warmup import SharedWarmup, shared_warmup
from .weights import save_weights

_log = logging.getLogger(__name__)
Report = Callable[["Record", int | None], None]


@dataclass(frozen=True)
class Record:
    """What is known after an epoch; sent to NNI with exactly these keys.

    Attributes:
        default: Accuracy of the decoded network on the held-out part, between 0 and 1.
        latency_ms: Latency of the decoded network by the table, in milliseconds.
        expected_latency_ms: E[latency] of the distribution, in milliseconds.
        entropy: Mean entropy of the layers, in nats.
        train_loss: Mean loss of the epoch's weight steps.
        expected_over_budget: Expected latency as a part of the budget, where there is one.
    """

    default: float
    latency_ms: float
    expected_latency_ms: float
    entropy: float
    train_loss: float
    expected_over_budget: float | None = None

    def metrics(self) -> dict[str, float]:
        """What is sent to NNI: numbers only, the same keys throughout a search."""
        return {key: value for key, value in asdict(self).items() if value is not None}


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
    batches = {"weights": ("batch_size", recipe.batch_size)}
    batches["architecture"] = (
        ("arch_batch_size", recipe.arch_batch_size) if recipe.arch_batch_size else batches["weights"]
    )
    for part, (key, batch) in batches.items():
        images = len(getattr(splits, part)) // recipe.devices
        if images < batch:
            raise DataError(
                f"{key} {batch} is larger than the {part} part of the data ({images} images"
                f"{' for each device' if recipe.devices > 1 else ''}); choose a smaller one"
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

    A folder that holds the checkpoint of a search with the same recipe is one that was interrupted: it goes on at the
    epoch it was in, with the table it had.

    Args:
        prepared: What `prepare` made.
        output: The folder; made if missing.
        report: Called with each epoch's record and its number, counted from 0 and from the first record, and at the end
            with the last one and None.
        trial_parameters: What NNI sent; kept in the architecture file.

    Returns:
        The architecture, with predicted and, where the target is this machine, measured latency.

    Raises:
        InputError: The accelerator or the budget is not to be had.
        RunError: The training failed.
    """
    recipe, spec = prepared.recipe, prepared.spec
    check_hardware(recipe)
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "checkpoint.ckpt"
    interrupted = is_interrupted(recipe, output, ("checkpoint.ckpt", "latency_table.yml"))
    if interrupted:
        prepared = replace(prepared, table=LatencyTable.load(output / "latency_table.yml"))
    elif is_main_process():
        checkpoint.unlink(missing_ok=True)
        write_yaml(output / "recipe.yml", recipe.to_dict(absolute=True))
        prepared.table.save(output / "latency_table.yml")
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    keep_freed_memory()
    pl.seed_everything(recipe.seed)
    loaders = _loaders(recipe, prepared.splits)
    steps_per_epoch = _steps_per_epoch(recipe, prepared.splits)
    strategy = make_strategy(recipe, prepared.table, spec, steps_per_epoch)
    recorder = _Recorder(prepared, strategy, output, report)
    several = PathParallelStrategy() if recipe.devices > 1 else "auto"
    trainer = make_trainer(recipe, output, steps_per_epoch, recorder, strategy=several)
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
            recorder.warmup = warmup
            if warmup.found:
                _log.info("%d epochs of warm-up from %s", recipe.warmup_epochs, warmup.path)
                start = warmup.path
        evaluator = Lightning(
            module,
            trainer,
            train_dataloaders=loaders["weights"],
            val_dataloaders=loaders["architecture"],
            fit_kwargs={} if start is None else {"ckpt_path": str(start)},
        )
        space = RawFormatModelSpace.from_model(MobileNetV2Space(spec), evaluator)
        strategy(space, SequentialExecutionEngine())
    architecture, network = recorder.decode()
    if not is_main_process():
        return architecture
    if recorder.last is None:
        raise RunError("the search ended without finishing an epoch")
    measured = prepared.target.measure(architecture, prepared.table)
    architecture = replace(
        architecture,
        measured_latency_ms=measured,
        metrics=recorder.last.metrics(),
        trial_parameters=dict(trial_parameters or {}),
    )
    save_weights(network, output / "weights.pt")
    architecture.save(output / "architecture.json")
    _log.info(
        "%s: accuracy %.4f, predicted %.3f ms, measured %s",
        prepared.target.name, recorder.last.default, recorder.last.latency_ms,
        "on another device" if measured is None else f"{measured:.3f} ms",
    )  # fmt: skip
    if report:
        report(recorder.last, None)
    return architecture


def is_main_process() -> bool:
    """Whether this is the process that was started, not one that Lightning started for another device."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def _steps_per_epoch(recipe: Recipe, splits: DataSplits) -> int:
    """Steps of the learning rate's schedule: the longer part of the data sets the pace, the other begins anew."""
    sizes = (
        (len(splits.weights), recipe.batch_size),
        (len(splits.architecture), recipe.arch_batch_size or recipe.batch_size),
    )
    steps = [math.ceil(images / recipe.devices) // batch for images, batch in sizes]
    if recipe.strategy == "enas":
        return sum(steps)  # first the one part, then the other, and the learning rate falls through both
    return steps[0] if recipe.strategy == "random" else max(steps)


def _warmup_depends_on(prepared: Prepared) -> dict[str, Any]:
    recipe = prepared.recipe
    keys = (
        "data", "data_dir", "arch_fraction", "held_out_fraction", "seed", "epochs", "warmup_epochs", "batch_size",
        "arch_batch_size", "learning_rate", "momentum", "weight_decay", "decay_norm_bias", "label_smoothing",
        "gradient_clip_val", "warmup_sampling", "accelerator", "devices", "precision", "channels_last", "threads",
        "num_workers",
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


class _Recorder(pl.Callback):
    """After each epoch: decode, validate, report, write. A crash loses at most the epoch in progress.

    Each epoch begins with random numbers of its own, so that a search that goes on where it was interrupted, or from a
    shared warm-up, sees the same images in the same order as one that was not.

    Attributes:
        last: The last record.
        warmup: The shared warm-up, where there is one.
    """

    def __init__(self, prepared: Prepared, strategy: LatencyAwareStrategy, output: Path, report: Report | None) -> None:
        self._prepared = prepared
        self._strategy = strategy
        self._output = output
        self._report = report
        self._rows: list[dict[str, Any]] = []
        self._probabilities: list[dict[str, Any]] = []
        self._weight_steps = 0
        self._losses: list[torch.Tensor] = []
        self._started = time.monotonic()
        self._search = hashlib.sha256(
            json.dumps(prepared.recipe.to_dict(absolute=True), sort_keys=True).encode()
        ).hexdigest()
        self.last: Record | None = None
        self.warmup: SharedWarmup | None = None
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

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints hold of it."""
        return {
            "search": self._search,
            "rows": self._rows,
            "probabilities": self._probabilities,
            "weight_steps": self._weight_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the history of an interrupted search; that which comes with a shared warm-up is another's."""
        if self.warmup is not None or state["search"] != self._search:
            return
        self._rows = list(state["rows"])
        self._probabilities = list(state.get("probabilities", []))
        self._weight_steps = state.get("weight_steps", 0)
        self.last = Record(**{f.name: self._rows[-1][f.name] for f in fields(Record) if f.name in self._rows[-1]})
        self._started -= self._rows[-1]["seconds"]

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.setdefault(CHECKPOINT_KEY, self._strategy.checkpoint())
        state["strategy"] = self._strategy.extra_state()

    def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        self._strategy.load_extra_state(checkpoint[CHECKPOINT_KEY].get("strategy", {}))

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._losses = []
        seed_epoch(self._prepared.recipe.seed, trainer.current_epoch, trainer.global_rank)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if outputs and "loss" in outputs:  # ENAS's steps of the controller have none
            self._losses.append(outputs["loss"])
            self._weight_steps += 1

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not self._losses:
            return  # Lightning's round through the epoch that a checkpoint was made after
        share_buffers(module, trainer.world_size)
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero:
            if epoch == trainer.max_epochs:
                self._rank_finalists()
            self._record(trainer, epoch)
            write_atomically(self._output / "checkpoint.ckpt", trainer.save_checkpoint)
        else:
            trainer.save_checkpoint("not written by this rank")
        if self.warmup is not None and epoch == self._prepared.recipe.warmup_epochs:
            if trainer.is_global_zero:
                self.warmup.save(lambda path: shutil.copyfile(self._output / "checkpoint.ckpt", path))
            trainer.strategy.barrier()

    def _cost(self, seconds: float) -> dict[str, Any]:
        """What the search has cost so far; a shared warm-up, which another one trained, is not in it."""
        cuda = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        return {
            "seconds": seconds,
            "epochs": len(self._rows),
            "weight_steps": self._weight_steps,
            "architecture_steps": getattr(self._strategy.oneshot_module, "architecture_steps", None),
            "batch_size": self._prepared.recipe.batch_size,
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "peak_cuda_memory_mib": cuda,
            "machine": asdict(this_device()),
            "versions": {name: version(name) for name in ("nni-proxyless", "nni", "torch", "pytorch-lightning")},
        }

    def _rank_finalists(self) -> None:
        """Where a strategy ends with several architectures: the best with the supernet's weights is decoded."""
        finalists = self._strategy.finalists()
        if not finalists:
            return
        judges = DataLoader(self._prepared.splits.finalists, batch_size=self._prepared.recipe.batch_size)
        rows: list[dict[str, Any]] = []
        for choices in finalists:
            self._strategy.choose(choices)
            architecture, network = self.decode()
            rows.append(
                {
                    "architecture": architecture.candidate_names,
                    "latency_ms": architecture.predicted_latency_ms,
                    "accuracy": accuracy(network, judges),
                }
            )
        found = [row["accuracy"] for row in rows]
        ranks = self._strategy.rank(finalists, found)
        self._strategy.choose(finalists[ranks.index(max(ranks))])
        rows = [{**row, "ranked_by": value} for row, value in zip(rows, ranks, strict=True)]
        write_csv(self._output / "finalists.csv", list(rows[0]), rows)
        _log.info("%d networks compared: accuracy %.4f to %.4f", len(found), min(found), max(found))

    def _record(self, trainer: Any, epoch: int) -> None:
        architecture, network = self.decode()
        loss = float(torch.stack(self._losses).mean())
        assert architecture.predicted_latency_ms is not None
        expected = self._strategy.expected_latency_ms()
        assert expected is not None
        budget = self._strategy.budget_ms
        record = Record(
            default=accuracy(network, self._held_out),
            latency_ms=architecture.predicted_latency_ms,
            expected_latency_ms=expected,
            entropy=self._strategy.mean_entropy(),
            train_loss=loss,
            expected_over_budget=None if budget is None else expected / budget,
        )
        self.last = record
        seconds = round(time.monotonic() - self._started, 2)
        details = self._strategy.progress()
        pruned = getattr(self._strategy.oneshot_module, "pruned", [])
        self._rows.append({"epoch": epoch, **record.metrics(), **details, "seconds": seconds})
        write_csv(self._output / "history.csv", list(self._rows[0]), self._rows)
        known = self._strategy.checkpoint()["candidates"]
        self._probabilities += [
            {"epoch": epoch, "layer": label, "candidate": candidate, "probability": p}
            for label, probs in self._strategy.path_probs().items()
            for candidate, p in zip(known[label], probs.tolist(), strict=True)
        ]
        write_csv(self._output / "probabilities.csv", list(self._probabilities[0]), self._probabilities)
        write_json(self._output / "cost.json", self._cost(seconds))
        if pruned:
            write_csv(self._output / "pruned.csv", list(pruned[0]), pruned)
        for name, value in {**record.metrics(), **details}.items():
            key = "val/accuracy" if name == "default" else f"search/{name}"
            trainer.logger.experiment.add_scalar(key, value, epoch)
        trainer.logger.experiment.flush()
        _log.info(
            "epoch %d/%d: accuracy %.4f, latency %.3f ms (expected %.3f), entropy %.3f, loss %.4f, %.0f s",
            epoch, trainer.max_epochs, record.default, record.latency_ms, record.expected_latency_ms,
            record.entropy, record.train_loss, seconds,
        )  # fmt: skip
        if self._report:
            self._report(record, len(self._rows) - 1)
