"""Callback of a search that decodes and validates a network after each epoch, and writes and reports the results.

A crash loses at most the current epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from ..data.class_sizes import differ_in_size
from ..files import results_folder
from ..files.writing import write_atomically, write_csv, write_json
from ..latency import this_device
from ..network.architecture import Architecture
from ..network.plain_network import Network
from ..network.space_spec import SpaceSpec
from ..process_memory import peak_memory_mib
from ..strategies.exported import installed_versions
from ..strategies.finalist import Finalist
from ..strategies.latency_aware import LatencyAwareStrategy
from ..strategies.path_parallel import share_buffers
from ..training.ranks import check_same_start
from ..training.trainer import seed_epoch, training_bytes
from ..values import finite_only, not_finite_warning
from .earlier import Begin
from .prepared import Prepared
from .shared_weights import SharedWeightEvaluator
from .warmup import SharedWarmup

_log = logging.getLogger(__name__)
STATE_KEY = "Recorder"  # of the callback's state in checkpoints, which are read by and from version 0.1
SearchReport = Callable[["Record", int | None], None]


@dataclass(frozen=True)
class Record:
    """Metrics of a search after an epoch. They are sent to NNI with exactly these keys.

    Attributes:
        default: Accuracy of the decoded network on the held-out part of the data, between 0 and 1.
        latency_ms: Latency of the decoded network, predicted by the table, in milliseconds.
        expected_latency_ms: Expected latency of the distribution over architectures, in milliseconds.
        entropy: Mean entropy of the layers at the current temperature, in nats.
        train_loss: Mean loss of the epoch's weight steps.
        expected_over_budget: Expected latency divided by the budget; `None` without a budget.
        balanced_accuracy: Mean of the classes' accuracies, between 0 and 1; `None` if they hardly differ in size.
    """

    default: float
    latency_ms: float
    expected_latency_ms: float
    entropy: float
    train_loss: float
    expected_over_budget: float | None = None
    balanced_accuracy: float | None = None

    def known(self) -> dict[str, float]:
        """Return all metrics of the search, including those that are not finite."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def metrics(self) -> dict[str, float]:
        """Return the metrics that are sent to NNI and written to files: the finite ones."""
        return finite_only(self.known())


class EpochCallback(pl.Callback):
    """Decodes and validates a network after each epoch, and writes and reports the results.

    The random number generators are seeded again in each epoch. So a search that is resumed after an interruption, or
    starts from a shared warm-up, sees the same images in the same order as an uninterrupted search.

    Args:
        prepared: Loaded and checked inputs of the search.
        strategy: Strategy of the search.
        output: Folder of the results.
        report: Function that is called with the record of each epoch and the record's number, counted from 0.
        begin: Function that is called before the results of the first epoch are written (`replacing`).

    Attributes:
        begun: Whether the training has begun, after the state of a checkpoint has been restored.
        last: Record of the last epoch; `None` before the end of the first epoch.
        warmup: Shared warm-up of the search; `None` if the search has none.
        notes: Warnings about the data, which are written with those of the first epoch.
    """

    def __init__(
        self,
        prepared: Prepared,
        strategy: LatencyAwareStrategy,
        output: Path,
        report: SearchReport | None,
        begin: Begin,
    ) -> None:
        self._prepared = prepared
        self._strategy = strategy
        self._output = output
        self._report = report
        self._begin = begin
        self._rows: list[dict[str, Any]] = []
        self._probabilities: list[dict[str, Any]] = []
        self._weight_steps = 0
        self._losses: list[torch.Tensor] = []
        self._started = time.monotonic()
        self._search = hashlib.sha256(
            json.dumps(prepared.recipe.to_dict(absolute=True), sort_keys=True).encode()
        ).hexdigest()
        self.begun = False
        self.last: Record | None = None
        self.warmup: SharedWarmup | None = None
        self.notes: tuple[str, ...] = ()
        self._unequal = differ_in_size(prepared.splits.held_out_labels)
        self._evaluator = SharedWeightEvaluator(prepared.recipe, prepared.splits)

    @property
    def state_key(self) -> str:
        """Key of the callback's state in Lightning's checkpoints."""
        return STATE_KEY

    def decode(self) -> tuple[Architecture, Network]:
        """Return the architecture found so far, and its network with the supernet's weights."""
        architecture = self._strategy.export_architecture(
            target=self._prepared.target.name, seed=self._prepared.recipe.seed
        )
        network = self._evaluator.network(self._strategy.supernet, architecture)
        return architecture, network

    def state_dict(self) -> dict[str, Any]:
        """Return the state for checkpoints."""
        return {
            "search": self._search,
            "rows": self._rows,
            "probabilities": self._probabilities,
            "weight_steps": self._weight_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the history of an interrupted search.

        The checkpoint of a shared warm-up contains the history of another search, which is ignored. Any other
        checkpoint is that of a search with the same recipe (`is_interrupted`).
        """
        if self.warmup is not None:
            return
        self._rows = list(state["rows"])
        self._probabilities = list(state["probabilities"])
        self._weight_steps = state["weight_steps"]
        self.last = Record(**{f.name: self._rows[-1][f.name] for f in fields(Record) if f.name in self._rows[-1]})
        self._started -= self._rows[-1]["seconds"]

    def on_train_start(self, trainer: Any, module: Any) -> None:
        check_same_start(trainer)
        self.begun = True

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._losses = []
        seed_epoch(self._prepared.recipe.seed, trainer.current_epoch, trainer.global_rank)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        if outputs and "loss" in outputs:  # the controller steps of ENAS return no loss
            self._losses.append(outputs["loss"])
            self._weight_steps += 1

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        if not self._losses:
            return  # after resuming, Lightning repeats the end of the last epoch in the checkpoint
        share_buffers(module, trainer.world_size)
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero:
            self._begin(training_bytes(module))
            self._record(trainer, epoch)
            write_atomically(self._output / results_folder.CHECKPOINT, trainer.save_checkpoint)
        else:
            trainer.save_checkpoint("not written by this rank")
        if self.warmup is not None and epoch == self._prepared.recipe.warmup_epochs:
            if trainer.is_global_zero:
                self.warmup.save(lambda path: shutil.copyfile(self._output / results_folder.CHECKPOINT, path))
            trainer.strategy.barrier()

    def _cost(self, seconds: float) -> dict[str, Any]:
        """Return the cost of the search so far. A shared warm-up that another search has trained does not count."""
        cuda = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
        alone = sum(finalist.trained_steps for finalist in self._strategy.compared)
        return {
            "seconds": seconds,
            "epochs": len(self._rows),
            "weight_steps": self._weight_steps,
            **({"finalist_steps": alone} if alone else {}),
            "architecture_steps": getattr(self._strategy.oneshot_module, "architecture_steps", None),
            "batch_size": self._prepared.recipe.batch_size,
            "peak_memory_mib": round(peak_memory_mib(), 1),
            "peak_cuda_memory_mib": cuda,
            "machine": asdict(this_device()),
            "versions": installed_versions(),
        }

    def _record(self, trainer: Any, epoch: int) -> None:
        write_finalists(self._output, self._prepared.spec, self._strategy.compared)
        architecture, network = self.decode()
        loss = float(torch.stack(self._losses).mean())
        assert architecture.predicted_latency_ms is not None
        expected = self._strategy.expected_latency_ms()
        assert expected is not None
        budget = self._strategy.budget_ms
        accuracies = self._evaluator.held_out_accuracies(network)
        record = Record(
            default=accuracies.top1,
            latency_ms=architecture.predicted_latency_ms,
            expected_latency_ms=expected,
            entropy=self._strategy.mean_entropy(),
            train_loss=loss,
            expected_over_budget=None if budget is None else expected / budget,
            balanced_accuracy=accuracies.balanced if self._unequal else None,
        )
        self.last = record
        seconds = round(time.monotonic() - self._started, 2)
        details = self._strategy.progress()
        pruned = getattr(self._strategy.oneshot_module, "pruned", [])
        told = {text for row in self._rows for text in row.get("warnings", "").split(results_folder.WARNING_SEPARATOR)}
        if (left_out := not_finite_warning(record.known())) is not None and left_out not in told:
            _log.warning("epoch %d: %s", epoch, left_out)
        warnings = [*self.notes, *self._strategy.warnings, *filter(None, [left_out])]
        new = results_folder.WARNING_SEPARATOR.join(text for text in warnings if text not in told)
        self._rows.append({"epoch": epoch, **record.known(), **details, "seconds": seconds, "warnings": new})
        columns = list(dict.fromkeys(key for row in self._rows for key in row))  # version 0.1 had no warnings
        write_csv(self._output / results_folder.HISTORY, columns, self._rows)
        known = self._strategy.checkpoint()["candidates"]
        self._probabilities += [
            {"epoch": epoch, "layer": label, "candidate": candidate, "probability": p}
            for label, probs in self._strategy.path_probs().items()
            for candidate, p in zip(known[label], probs.tolist(), strict=True)
        ]
        write_csv(self._output / results_folder.PROBABILITIES, list(self._probabilities[0]), self._probabilities)
        write_json(self._output / results_folder.COST, self._cost(seconds))
        if pruned:
            write_csv(self._output / results_folder.PRUNED, list(pruned[0]), pruned)
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


def write_finalists(folder: Path, spec: SpaceSpec, compared: Sequence[Finalist]) -> None:
    """Write `finalists.csv` if a strategy has compared architectures."""
    rows = finalist_rows(spec, compared)
    if rows:
        write_csv(folder / results_folder.FINALISTS, list(rows[0]), rows)


def finalist_rows(spec: SpaceSpec, compared: Sequence[Finalist]) -> list[dict[str, Any]]:
    """Return the rows of `finalists.csv`: the architectures that a strategy has compared, the most likely one first.

    `latency_std_ms` and `above_budget` are columns only if the latency table knows its uncertainty, and `trained_steps`
    and `trained_accuracy` only if finalists were trained on.
    """
    trained = any(f.trained_steps for f in compared)
    doubt = [{} if f.above_budget is None else {"latency_std_ms": f.latency_std_ms, "above_budget": f.above_budget}
             for f in compared]  # fmt: skip
    return [
        {
            "architecture": Architecture.of_space(spec, finalist.choices).candidate_names,
            "latency_ms": finalist.latency_ms,
            "multiply_adds": finalist.multiply_adds,
            "log_likelihood": finalist.log_likelihood,
            "accuracy": finalist.score,
            "ranked_by": finalist.ranked_by,
            **more,
            **(
                {"trained_steps": finalist.trained_steps, "trained_accuracy": finalist.trained_score} if trained else {}
            ),
        }
        for finalist, more in zip(compared, doubt, strict=True)
    ]
