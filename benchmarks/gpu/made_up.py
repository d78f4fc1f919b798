"""Made-up images, files and latency tables, for the parts of the GPU check that do not depend on their content."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.constants import TINY_SPACE as TINY_SPACE
from nni_proxyless.latency import LatencyTable, OperatorCost
from nni_proxyless.network.space_spec import SpaceSpec
from nni_proxyless.search.forecast import stand_in_table

CLASSES = 10
IMAGES = "NNI_PROXYLESS_MADE_UP_IMAGES"  # number of images that `images` makes


def images(input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Return random images of a network's size, for recipes with `data: benchmarks.gpu.made_up:images`."""
    count = int(os.environ[IMAGES])
    channels, height, width = input_shape
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return {"train": (pixels, np.arange(count) % CLASSES), "classes": [f"class {n}" for n in range(CLASSES)]}


def write_image_folder(folder: Path, count: int, size: tuple[int, int], distinct: int = 256) -> Path:
    """Write JPEG files in ImageNet's layout, `train/<class>/<image>`.

    Args:
        folder: Folder to write.
        count: Number of files.
        size: Width and height of the images in pixels.
        distinct: Number of different images; the other files are hard links to them.
    """
    generator = np.random.default_rng(0)
    made: list[Path] = []
    for number in range(count):
        path = folder / "train" / f"class_{number % CLASSES}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= distinct:
            os.link(made[number % distinct], path)
            continue
        # Smooth noise: files of a photograph's size, which take a photograph's time to decode.
        small = Image.fromarray(generator.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8))
        content = io.BytesIO()
        small.resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
        path.write_bytes(content.getvalue())
        made.append(path)
    return folder


def made_up_table(spec: SpaceSpec) -> LatencyTable:
    """Return a latency table of a device that does not exist: the n-th operator takes n milliseconds."""
    costs = {operator: OperatorCost(n + 1.0, 0.0, 1) for n, operator in enumerate(spec.distinct_operators())}
    return replace(stand_in_table(spec), operators=costs)
