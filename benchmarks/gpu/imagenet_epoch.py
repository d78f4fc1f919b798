"""Speed of the search of `experiments/imagenet` on made-up images, and the GPU-hours that its 160 epochs would take.

    python -m benchmarks.gpu.imagenet_epoch [--device cpu --toy --output FOLDER]

The part times steps of the recipe with the recipe's own loaders, as `nni-proxyless search --dry-run` does: steps of the
warm-up, and steps of the search, in which every fifth one trains the architecture too. The GPU-hours are those of the
steps alone, without the validation after each epoch. The paper's search took 200 GPU-hours (Cai, Zhu, Han 2019, table
2), on a GPU of 2018.

Images in memory show the speed of the GPU, JPEG files that of the whole machine. The images have ten classes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from benchmarks.constants import REPOSITORY
from benchmarks.gpu.made_up import CLASSES, IMAGES, TINY_SPACE, made_up_table, write_image_folder
from benchmarks.gpu.part import Item, Row, Setting, run
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.forecast import forecast_search
from nni_proxyless.search.prepared import prepare
from nni_proxyless.search.recipe import Recipe

COLUMNS = (
    "images", "precision", "memory_format", "workers", "batch", "warmup_step_s", "search_step_s", "search_step_low_s",
    "search_step_high_s", "warmup_images_per_s", "search_images_per_s", "steps_per_epoch", "epochs", "gpu_hours",
    "gpu_hours_of_the_paper",
)  # fmt: skip
RECIPE = REPOSITORY / "experiments" / "imagenet" / "recipe.yml"
IMAGENET = 1_281_167  # training images of ImageNet-1k
GPU_HOURS_OF_THE_PAPER = 200
SHARED_MEMORY = 4 << 30  # bytes that batches of several loading processes need
PARTS = {"arch_fraction": 0.15, "held_out_fraction": 0.15}  # of the few images here


@dataclass(frozen=True)
class Source:
    """Where the images of a run come from, and how it computes.

    Attributes:
        images: `memory` or `jpeg`.
        precision: Lightning's precision.
        channels_last: Whether tensors use channels_last.
    """

    images: str
    precision: str
    channels_last: bool


def items(setting: Setting) -> list[Item]:
    mixed = "16-mixed" if setting.device == "cuda" else "bf16-mixed"
    sources = (
        Source("memory", "32-true", False),  # the recipe as it is
        Source("memory", mixed, True),
        Source("jpeg", mixed, True),
    )
    return [
        (f"{s.images}, {s.precision}", partial(_rows, setting, s, setting.scratch / str(n)))
        for n, s in enumerate(sources)
    ]


def _rows(setting: Setting, source: Source, folder: Path) -> Iterable[Row]:
    folder.mkdir()
    recipe = _recipe(setting, source, folder)
    try:
        forecast = forecast_search(prepare(recipe))
    finally:
        shutil.rmtree(folder)
    if forecast is None or forecast.warmup_step is None:
        raise RuntimeError("there are too few images to time a step")
    whole = Recipe.load(RECIPE, {})
    images = IMAGENET * (1 - whole.arch_fraction - whole.held_out_fraction)
    steps = int(images) // whole.batch_size
    warm, search = forecast.warmup_step.mean, forecast.search_step
    epochs = whole.epochs - whole.warmup_epochs
    yield {
        "images": source.images, "precision": source.precision,
        "memory_format": "channels_last" if source.channels_last else "contiguous",
        "workers": recipe.num_workers, "batch": recipe.batch_size, "warmup_step_s": round(warm, 5),
        "search_step_s": round(search.mean, 5), "search_step_low_s": round(search.low, 5),
        "search_step_high_s": round(search.high, 5), "warmup_images_per_s": round(recipe.batch_size / warm, 1),
        "search_images_per_s": round(recipe.batch_size / search.mean, 1), "steps_per_epoch": steps,
        "epochs": whole.epochs,
        "gpu_hours": round(steps * (whole.warmup_epochs * warm + epochs * search.mean) / 3600, 2),
        "gpu_hours_of_the_paper": GPU_HOURS_OF_THE_PAPER,
    }  # fmt: skip


def _recipe(setting: Setting, source: Source, folder: Path) -> Recipe:
    """The recipe with another place of the images, another table, and the precision of the run."""
    changes: dict[str, Any] = {
        "accelerator": setting.accelerator, "precision": source.precision, "channels_last": source.channels_last,
        "accept_tables": True, "target": "made_up", "targets": {"made_up": {"table": str(folder / "table.yml")}},
        **PARTS,
    }  # fmt: skip
    recipe = Recipe.load(RECIPE, {})
    spec = SpaceSpec.from_yaml(recipe.space).with_changes(classes=CLASSES)
    if setting.toy:
        spec = SpaceSpec.from_dict({**TINY_SPACE, "input": {"channels": 3, "size": 16}})
        (folder / "space.yml").write_text(yaml.safe_dump(spec.to_dict()), encoding="utf-8")
        changes |= {"space": str(folder / "space.yml"), "batch_size": 8, "num_workers": 1}
    made_up_table(spec).save(folder / "table.yml")
    count = (17 if setting.device == "cuda" else 16) * int(changes.get("batch_size", recipe.batch_size))
    count = int(count / (1 - sum(PARTS.values()))) + 1
    if source.images == "jpeg":
        size = (64, 48) if setting.toy else (500, 375)
        write_image_folder(folder / "images", count, size)
        changes |= {"data": "imagefolder", "data_dir": str(folder / "images")}
    else:
        os.environ[IMAGES] = str(count)
        changes |= {"data": "benchmarks.gpu.made_up:images", "data_dir": None, "augmentation": "none"}
    if shutil.disk_usage("/dev/shm").total < SHARED_MEMORY and not setting.toy:
        changes["num_workers"] = 0
    return Recipe.load(RECIPE, changes)


if __name__ == "__main__":
    raise SystemExit(run("imagenet_epoch", COLUMNS, items, __doc__))
