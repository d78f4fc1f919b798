"""Looks at a folder of images, or an `.npz` file: classes, numbers of images, sizes and colours. Needs no torch."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, clipped
from ..files.nearby import did_you_mean
from ..files.reading import open_regular

# The endings that torchvision's ImageFolder takes for images.
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MOST_OPENED = 200  # images whose headers are read
HELD = ("val", "test", "validation", "valid")  # folders of test images; the first one that exists is used
LEAST_OF_A_CLASS = 5  # with a fifth held out and a fifth for the architecture, each part has one
_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}


@dataclass(frozen=True)
class FoundImages:
    """What is in a folder of images or in an `.npz` file.

    Attributes:
        source: The folder or file.
        kind: Name of the data set in a recipe, `imagefolder` or `arrays`.
        nested: Whether the folder has a folder `train`. Otherwise it holds the folders of the classes itself.
        training: Number of training images of each class.
        test: Number of test images; 0 if there are none.
        sizes: Heights and widths of the images that were looked at, in pixels.
        channels: Channels of an image. Those of a folder have 1 if all that were looked at are grey, else 3.
    """

    source: Path
    kind: str
    nested: bool
    training: Mapping[str, int]
    test: int
    sizes: tuple[tuple[int, int], ...]
    channels: int

    @property
    def images(self) -> int:
        """Number of training images."""
        return sum(self.training.values())

    @property
    def side(self) -> int:
        """Median of the shorter sides of the images, in pixels."""
        return round(statistics.median(min(size) for size in self.sizes))

    @property
    def imbalance(self) -> float:
        """Number of images of the largest class, divided by that of the smallest one."""
        return max(self.training.values()) / min(self.training.values())


def look_at(source: Path) -> FoundImages:
    """Look at a folder of images, or at an `.npz` file.

    Args:
        source: Folder with a folder of images for each class, or with `train` and perhaps `val` or `test` of this
            layout; or an `.npz` file as the data set `arrays` takes it.

    Raises:
        DataError: There are no images, fewer than two classes, a class with too few images, or an image that cannot be
            read.
    """
    found = _arrays(source) if source.suffix == ".npz" or source.is_file() else _folder(source)
    if len(found.training) < 2:
        named = ", ".join(found.training) or "none"
        raise DataError(f"{source} has {len(found.training)} class with images ({named}), and at least 2 are needed")
    few = {name: count for name, count in found.training.items() if count < LEAST_OF_A_CLASS}
    if few:
        listed = ", ".join(f"{name} ({count})" for name, count in few.items())
        raise DataError(f"each class needs at least {LEAST_OF_A_CLASS} images, but {source} has fewer of {listed}")
    return found


def _folder(source: Path) -> FoundImages:
    if not source.is_dir():
        raise DataError(f"{source} is neither a folder of images nor an .npz file{did_you_mean(source)}")
    nested = (source / "train").is_dir()
    training = _classes(source / "train" if nested else source)
    held = next((source / name for name in HELD if nested and (source / name).is_dir()), None)
    test = {} if held is None else _classes(held)
    if not training:
        raise DataError(
            f"{source} holds no folder of images for each class; images end with {', '.join(ENDINGS)}, and a test part "
            "lies in 'val' beside 'train'"
        )
    empty = [name for name, paths in training.items() if not paths]
    if empty:
        raise DataError(f"{source}: no images in {', '.join(empty)}; remove these folders, or add images")
    if test and set(test) != set(training):
        odd = sorted(set(test) ^ set(training))
        raise DataError(
            f"{source}: 'train' and '{held.name if held else HELD[0]}' must have the same classes, but differ in "
            f"{', '.join(odd)}"
        )
    paths = [path for listed in training.values() for path in listed]
    opened = [_header(path) for path in paths[:: max(1, len(paths) // MOST_OPENED)]]
    return FoundImages(
        source=source,
        kind="imagefolder",
        nested=nested,
        training={name: len(listed) for name, listed in training.items()},
        test=sum(len(listed) for listed in test.values()),
        sizes=tuple(size for size, _ in opened),
        channels=1 if all(mode in _GREY for _, mode in opened) else 3,
    )


def _classes(folder: Path) -> dict[str, list[Path]]:
    """List the images in each class, as torchvision does: all in the folder of the class and below it."""
    classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return {
        name: sorted(
            Path(place) / file
            for place, _, files in os.walk(folder / name, followlinks=True)
            for file in files
            if file.lower().endswith(ENDINGS)
        )
        for name in classes
    }


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Return height and width, and Pillow's mode of an image."""
    from PIL import Image, UnidentifiedImageError

    with open_regular(path, "image", DataError) as file:
        try:
            with Image.open(file) as image:
                return (image.height, image.width), image.mode
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as reason:
            why = clipped(" ".join(str(reason).split()))
            raise DataError(f"image {path} cannot be read: {why}; remove or replace it") from reason


def _arrays(source: Path) -> FoundImages:
    from .npz_file import read_arrays

    if not source.is_file():
        raise DataError(f"there is no file {source}")
    arrays = read_arrays(source, ("images", "labels", "test_labels"))
    for name in ("images", "labels"):
        if name not in arrays:
            raise DataError(f"{source} has no array '{name}'; docs/your_own.md describes its arrays")
    images, labels = arrays["images"], arrays["labels"]
    if images.ndim not in (3, 4) or labels.shape != images.shape[:1]:
        raise DataError(
            f"{source}: 'images' must be of shape (count, height, width) or (count, height, width, channels), and "
            f"'labels' must have a whole number for each, got {images.shape} and {labels.shape}"
        )
    counts = Counter(labels.tolist())
    return FoundImages(
        source=source,
        kind="arrays",
        nested=True,
        training={str(label): counts[label] for label in sorted(counts)},
        test=len(arrays["test_labels"]) if "test_labels" in arrays else 0,
        sizes=((int(images.shape[1]), int(images.shape[2])),),
        channels=1 if images.ndim == 3 else int(images.shape[3]),
    )
