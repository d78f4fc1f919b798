"""CIFAR-10 in full size, searched for the GPU and trained on it, in the time that there is.

    python -m benchmarks.gpu.cifar10 [--seconds 150] [--device cpu --toy --output FOLDER]

45,000 images of 32 x 32 pixels are searched and trained on, with the widths of `mobilenetv2_cifar`. The found network
and MobileNetV2 are trained from scratch with the same settings and tested on the other 5,000. The search and the
trainings get as many epochs as fit into the time, which is few: `experiments/cifar10` has 300. The accuracies therefore
say that everything works, and little about the networks.

The images are `$NNI_PROXYLESS_DATA/cifar10/train.tar.xz`, or those in `shared/data` in or beside the checkout.
"""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cifar10.settings import MOBILENET_V2_DEPTHS
from benchmarks.constants import REPOSITORY
from benchmarks.gpu.made_up import TINY_SPACE, made_up_table, write_image_folder
from benchmarks.gpu.part import Item, Row, Setting, run
from benchmarks.search_quality.ground_truth.train import Training, make_data
from nni_proxyless.deploy.forecast import forecast_retraining
from nni_proxyless.deploy.retrain import prepare_retraining, run_retraining
from nni_proxyless.deploy.retrain_recipe import RetrainRecipe
from nni_proxyless.latency import make_backend, measure_table_isolated
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.forecast import forecast_search
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe
from nni_proxyless.search.run import run_search

COLUMNS = (
    "what", "epochs", "seconds", "seconds_per_epoch", "training_images", "image_size", "batch", "top1_held_out",
    "top1_test", "test_images", "predicted_ms", "budget_ms", "multiply_adds", "parameters",
)  # fmt: skip
SPACE = "mobilenetv2_cifar"
IMAGES, TEST_IMAGES, SIZE = 45_000, 5_000, 32
SHARE = 0.35  # of the time that is left: of the search, and then of each training
EPOCHS = (3, 60)  # fewest and most
LATENCY_BATCH = 128


class Cifar10:
    """The steps of the part, which build on each other: images, latency table, search, trainings."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.folder = setting.scratch
        self.spec = SpaceSpec.from_yaml(SPACE)
        self.epochs: int | None = None  # of both trainings
        self.found: Architecture | None = None
        self.parts: dict[str, Any] = {"arch_fraction": 0.1, "held_out_fraction": 0.1}
        self.common: dict[str, Any] = {
            "data": "arrays", "data_dir": str(self.folder / "images.npz"), "batch_size": 256, "weight_decay": 3e-4,
            "accelerator": setting.accelerator, "num_workers": 4, **self.parts,
        }  # fmt: skip
        if setting.toy:
            self.spec = SpaceSpec.from_dict({**TINY_SPACE, "input": {"channels": 3, "size": 8}})
            self.common |= {"batch_size": 8, "num_workers": 1}

    def search(self) -> Iterable[Row]:
        """Make the images, measure the table, and search."""
        toy = self.setting.toy
        source = self._made_up_archive() if toy else archive().parent
        size = self.spec.input_shape[1]
        training = Training(images=240 if toy else IMAGES, test_images=60 if toy else TEST_IMAGES, size=size)
        make_data(source, training, self.folder / "images.npz")
        (self.folder / "space.yml").write_text(yaml.safe_dump(self.spec.to_dict()), encoding="utf-8")
        self._table().save(self.folder / "table.yml")
        settings = {
            **self.common, "space": str(self.folder / "space.yml"), "budget_fraction": 0.75 if toy else 0.5,
            "learning_rate": 0.1, "finalists": 4 if toy else 32, "accept_tables": True,
            "target": "gpu", "targets": {"gpu": {"table": str(self.folder / "table.yml")}},
        }  # fmt: skip
        forecast = forecast_search(prepare(Recipe.from_dict({**settings, "epochs": 4, "warmup_epochs": 1})))
        each = None if forecast is None else (forecast.training.mean / 4)
        epochs = self._fitting(each)
        begun = time.monotonic()
        recipe = Recipe.from_dict({**settings, "epochs": epochs, "warmup_epochs": epochs // 3})
        self.found = run_search(prepare(recipe), self.folder / "search")
        yield self._row("search", self.found, epochs, time.monotonic() - begun, self.found.metrics["default"], None)

    def train_found(self) -> Iterable[Row]:
        """Train the found network."""
        if self.found is None:
            raise RuntimeError("the search has found no network")
        return self._train("found network", self.found)

    def train_mobilenet(self) -> Iterable[Row]:
        """Train MobileNetV2."""
        depths = MOBILENET_V2_DEPTHS if not self.setting.toy else [stage.depth for stage in self.spec.stages]
        stages = tuple(replace(stage, depth=d) for stage, d in zip(self.spec.stages, depths, strict=True))
        return self._train("MobileNetV2", Architecture.mobilenet_v2(1.0, replace(self.spec, stages=stages)))

    def _train(self, what: str, architecture: Architecture) -> Iterable[Row]:
        path = architecture.save(self.folder / what.replace(" ", "_") / "architecture.json")
        settings = {**self.common, "architecture": str(path), "learning_rate": 0.1, "warmup_epochs": 1}
        if self.epochs is None:
            forecast = forecast_retraining(prepare_retraining(RetrainRecipe.from_dict({**settings, "epochs": 4})))
            self.epochs = self._fitting(None if forecast is None else forecast.total.mean / 4)
        epochs = self.epochs
        begun = time.monotonic()
        card = run_retraining(
            prepare_retraining(RetrainRecipe.from_dict({**settings, "epochs": epochs})), path.parent / "trained"
        )
        results = card["results"]
        yield self._row(
            what, architecture, epochs, time.monotonic() - begun, results["validation"]["top1"],
            results["test"]["top1"],
        )  # fmt: skip

    def _row(
        self, what: str, network: Architecture, epochs: int, seconds: float, held_out: float, test: float | None
    ) -> Row:
        toy = self.setting.toy
        return {
            "what": what, "epochs": epochs, "seconds": round(seconds, 2),
            "seconds_per_epoch": round(seconds / epochs, 3),
            "training_images": 240 if toy else IMAGES, "image_size": self.spec.input_shape[1],
            "batch": self.common["batch_size"], "top1_held_out": round(held_out, 4),
            "top1_test": "" if test is None else round(test, 4), "test_images": 60 if toy else TEST_IMAGES,
            "predicted_ms": network.predicted_latency_ms or "", "budget_ms": network.budget_ms or "",
            "multiply_adds": network.multiply_adds, "parameters": network.parameters,
        }  # fmt: skip

    def _table(self) -> Any:
        if self.setting.toy:  # the part `latency` measures one
            return made_up_table(self.spec)
        backend = make_backend("torch", threads=1, batch=LATENCY_BATCH, device=self.setting.device)
        return measure_table_isolated(self.spec, backend, processes=1, most_processes=1, calibration_networks=4)

    def _fitting(self, seconds_each: float | None) -> int:
        """Number of epochs that fit into a share of the time that is left."""
        fewest, most = EPOCHS
        if self.setting.toy:
            return fewest
        if not seconds_each:
            raise RuntimeError("the steps could not be timed")
        return max(fewest, min(most, int(SHARE * self.setting.left / seconds_each)))

    def _made_up_archive(self) -> Path:
        """An archive in the form of CIFAR-10's, with made-up images."""
        write_image_folder(self.folder / "made_up", 300, (32, 32), distinct=300)
        with tarfile.open(self.folder / "train.tar.xz", "w:xz") as file:
            file.add(self.folder / "made_up" / "train", "train")
        return self.folder


def archive() -> Path:
    """CIFAR-10's training images.

    Raises:
        FileNotFoundError: They are in none of the places.
    """
    named = os.environ.get("NNI_PROXYLESS_DATA")
    places = [Path(named)] if named else [REPOSITORY / "shared" / "data", REPOSITORY.parent / "shared" / "data"]
    for place in places:
        if (path := place / "cifar10" / "train.tar.xz").is_file():
            return path
    raise FileNotFoundError(
        f"no cifar10/train.tar.xz in {' or '.join(map(str, places))}; set NNI_PROXYLESS_DATA to the folder that has it"
    )


def items(setting: Setting) -> list[Item]:
    part = Cifar10(setting)
    return [
        ("search", part.search),
        ("training of the found network", part.train_found),
        ("training of MobileNetV2", part.train_mobilenet),
    ]


if __name__ == "__main__":
    raise SystemExit(run("cifar10", COLUMNS, items, __doc__))
