"""Checks of whole searches on a device: precisions, gradient clipping, determinism, resumption and retraining."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from benchmarks.gpu.made_up import made_up_table
from benchmarks.results_csv import read_rows
from nni_proxyless.deploy.retrain import prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.files import results_folder
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.network.torch_file import read_torch_file
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search

LOSS_OF_GUESSING = math.log(10)  # cross-entropy of ten equally likely digits


class StoppedOnPurposeError(Exception):
    """Ends a search that is to be resumed."""


class SearchChecks:
    """Checks of searches on handwritten digits.

    Args:
        spec: Space of the searches.
        accelerator: Lightning's name of the device.
        folder: Folder for files of the checks.
        epochs: Number of epochs of a search; the first one is warm-up.
    """

    def __init__(self, spec: SpaceSpec, accelerator: str, folder: Path, epochs: int) -> None:
        self.folder = folder
        self.epochs = epochs
        self.settings: dict[str, Any] = {
            "space": "space.yml", "data": "digits", "epochs": epochs, "warmup_epochs": 1, "batch_size": 64,
            "learning_rate": 0.1, "budget_fraction": 0.8, "arch_learning_rate": 0.1, "finalists": 4, "bn_batches": 2,
            "share_warmup": False, "accept_tables": True, "accelerator": accelerator,
            "target": "made_up", "targets": {"made_up": {"table": "table.yml"}},
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "space.yml").write_text(yaml.safe_dump(spec.to_dict()), encoding="utf-8")
        made_up_table(spec).save(folder / "table.yml")

    def search(self, report: Any = None, output: Path | None = None, **changes: Any) -> tuple[Architecture, Path]:
        """Run a search, and return its architecture and the folder of its results."""
        output = output or Path(tempfile.mkdtemp(dir=self.folder))
        recipe = Recipe.from_dict({**self.settings, **changes}, self.folder)
        return run_search(prepare(recipe), output, report), output

    def precision(self, precision: str, **changes: Any) -> float:
        """Loss that a search in a precision has at its end, above that of guessing; below 0 is right.

        The architecture must be within the budget, and the architecture parameters not all 0.
        """
        architecture, output = self.search(precision=precision, **changes)
        assert architecture.budget_ms is not None
        assert architecture.predicted_latency_ms is not None
        if architecture.predicted_latency_ms > architecture.budget_ms * (1 + 1e-9):
            raise AssertionError(f"{architecture.predicted_latency_ms} ms exceed {architecture.budget_ms} ms")
        if not any(bool(alpha.any()) for alpha in self._alphas(output)):
            raise AssertionError("no architecture step has moved an architecture parameter")
        return _last_loss(output)

    def retraining(self, precision: str) -> float:
        """The same for the retraining of the largest network, from scratch and with gradient clipping."""
        space = self.folder / "space.yml"
        spec = SpaceSpec.from_yaml(str(space))
        widest = {layer.label: layer.names[-1] for layer in spec.layers}
        path = Architecture.of_space(spec, widest).save(self.folder / "architecture.json")
        settings = {
            "architecture": str(path), "data": "digits", "epochs": self.epochs, "warmup_epochs": 1, "batch_size": 64,
            "accelerator": self.settings["accelerator"], "precision": precision, "gradient_clip_val": 1.0,
            "label_smoothing": 0.0,
        }  # fmt: skip
        output = self.folder / f"net-{precision}"
        run_retraining(prepare_retraining(RetrainRecipe.from_dict(settings)), output)
        return _last_loss(output)

    def repeated(self, reproducible: bool) -> float:
        """Largest difference between the architecture parameters and weights of two searches with the same seed."""
        with deterministic() if reproducible else _nothing():
            first, second = (self._state(self.search()[1]) for _ in range(2))
        return _difference(first, second)

    def resumed(self) -> float:
        """The same for a search that was stopped after its first epoch and resumed, and one that was not."""

        def stop(record: Any, number: int | None) -> None:
            if number == 0:
                raise StoppedOnPurposeError

        with deterministic():
            whole = self._state(self.search()[1])
            output = Path(tempfile.mkdtemp(dir=self.folder))
            before = logging.root.manager.disable
            logging.disable(logging.CRITICAL)  # NNI logs the end as an error
            try:
                self.search(stop, output)
            except StoppedOnPurposeError:
                pass
            else:
                raise AssertionError("the search was not stopped")
            finally:
                logging.disable(before)
            resumed = self._state(self.search(output=output)[1])
        return _difference(whole, resumed)

    def _alphas(self, output: Path) -> list[Tensor]:
        state = self._state(output)
        found = [value for name, value in state.items() if name.endswith("alpha")]
        assert found
        return found

    @staticmethod
    def _state(output: Path) -> dict[str, Tensor]:
        return dict(read_torch_file(output / results_folder.CHECKPOINT)["state_dict"])


def _last_loss(output: Path) -> float:
    """Mean loss of the last epoch's weight steps above that of guessing. Infinity or NaN is never below 0."""
    return float(read_rows(output / results_folder.HISTORY)[-1]["train_loss"]) - LOSS_OF_GUESSING


@contextmanager
def deterministic() -> Iterator[None]:
    """Context manager in which PyTorch uses deterministic algorithms. Those that have none give a warning.

    For cuBLAS, `check.py` sets CUBLAS_WORKSPACE_CONFIG.
    """
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    if first.keys() != second.keys():
        raise AssertionError("the checkpoints have other tensors")
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)
