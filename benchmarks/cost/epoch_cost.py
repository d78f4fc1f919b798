"""An epoch of search through Lightning, in units of an epoch of training one network through Lightning."""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from typing import Any

import pytorch_lightning as pl
import torch
from nni.nas.evaluator.pytorch import DataLoader, Lightning, Trainer
from nni.nas.execution import SequentialExecutionEngine
from nni.nas.space import RawFormatModelSpace
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import TensorDataset

from benchmarks.cost.ratios import ratio_rows
from benchmarks.cost.supernets import BATCH, SIZE, paper_spec
from nni_proxyless import MobileNetV2Space, ProxylessNAS
from nni_proxyless.latency import random_architecture
from nni_proxyless.training.image_classification import ImageClassification

TWO_PATH: dict[str, Any] = {"arch_gradient": "two_path", "arch_update_every": 1, "arch_weight_decay": 0.0}
RECIPES: dict[str, Any] = {"arch_gradient": "full", "arch_update_every": 2, "arch_weight_decay": 0.001}


class EpochTimes(pl.Callback):
    """Records the seconds of each epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.seconds.append(time.perf_counter() - self._start)


def epoch(networks: int, batches: int = 20) -> list[dict[str, Any]]:
    """Alternate two epochs of search and two epochs of training one network; the second epoch of each counts."""
    generator = random.Random(0)
    images = TensorDataset(torch.randn(BATCH * batches, 3, SIZE, SIZE), torch.randint(0, 1000, (BATCH * batches,)))
    spec = paper_spec()

    def trainer(times: EpochTimes, folder: str) -> Any:
        return Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[times],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
        )

    def module() -> ImageClassification:
        return ImageClassification(
            learning_rate=0.01, momentum=0.9, weight_decay=4e-5, label_smoothing=0.1, total_steps=2 * batches
        )

    def loader() -> Any:
        return DataLoader(images, batch_size=BATCH, shuffle=True)

    def search(space: MobileNetV2Space, strategy: ProxylessNAS) -> float:
        with tempfile.TemporaryDirectory() as folder:
            times = EpochTimes()
            evaluator = Lightning(
                module(), trainer(times, folder), train_dataloaders=loader(), val_dataloaders=loader()
            )
            strategy(RawFormatModelSpace.from_model(space, evaluator), SequentialExecutionEngine())
            return times.seconds[-1]

    searched: dict[str, list[float]] = {}
    trained: list[float] = []
    for number in range(networks):
        searched.setdefault("search", []).append(search(MobileNetV2Space(spec), ProxylessNAS(**TWO_PATH, seed=number)))
        recipes = ProxylessNAS(**RECIPES, seed=number)
        took = search(MobileNetV2Space(spec, entangled=True), recipes)
        searched.setdefault("search, recipes' defaults", []).append(took)
        with tempfile.TemporaryDirectory() as folder:
            times = EpochTimes()
            alone = module()
            alone.set_model(random_architecture(spec, generator).build())
            trainer(times, folder).fit(alone, loader())
            trained.append(times.seconds[-1])
    unit = statistics.mean(trained)  # a search trains many networks, so the unit is a mean over several
    ratios = {what: [value / unit for value in values] for what, values in searched.items()}
    return ratio_rows("epoch", ratios, "time of an epoch of training alone")
