"""Data sets, and the one seeded split into weight-training, architecture-training and held-out parts.

The paper takes the architecture part from the training set so that the test set is never searched on
(section 4.3); so do we, and a third part, which neither weights nor architecture ever learn from, judges the
decoded networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Subset, TensorDataset

from .errors import DataError, unknown_name
from .image_arrays import load_arrays

ImageDataset = Dataset[tuple[Tensor, Any]]
_CIFAR_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class DataSource:
    """A training set before it is split.

    Attributes:
        train: With augmentation, where the images are natural ones.
        plain: The same images in the same order, without.
        labels: Class of each image.
        num_classes: Number of classes.
        test: The data set's own test part, which no split touches, where it has one.
        natural: Whether the images are photographs, which crops, flips and mixtures leave what they are.
    """

    train: ImageDataset
    plain: ImageDataset
    labels: Sequence[int]
    num_classes: int
    test: ImageDataset | None = None
    natural: bool = True


@dataclass(frozen=True)
class DataSplits:
    """The three parts; no image is in two of them.

    Attributes:
        weights: Trains the weights.
        architecture: Trains the architecture.
        finalists: The images of `architecture` without augmentation: compares networks at the end of a search.
        held_out: Judges decoded networks; without augmentation.
        statistics: The images of `weights` without augmentation: re-estimates batch-norm statistics.
        num_classes: Number of classes.
        training: `weights` and `architecture` together: trains a network that has been found.
        test: The data set's own test part, where it has one.
        natural: Whether the images are photographs.
    """

    weights: Subset[tuple[Tensor, Any]]
    architecture: Subset[tuple[Tensor, Any]]
    finalists: Subset[tuple[Tensor, Any]]
    held_out: Subset[tuple[Tensor, Any]]
    statistics: Subset[tuple[Tensor, Any]]
    num_classes: int
    training: Subset[tuple[Tensor, Any]]
    test: ImageDataset | None
    natural: bool


def load_splits(
    name: str,
    input_shape: tuple[int, int, int],
    *,
    data_dir: Path | None = None,
    download: bool = False,
    arch_fraction: float = 0.2,
    held_out_fraction: float = 0.2,
    seed: int = 0,
) -> DataSplits:
    """Load a data set and split it.

    Args:
        name: `digits`, `cifar10`, `cifar100`, `imagefolder` or `arrays`.
        input_shape: Channels, height and width that the network takes.
        data_dir: Folder of the files, of `arrays` the `.npz` file; `digits` needs none.
        download: Whether torchvision may download CIFAR.
        arch_fraction: Part of the images that trains the architecture.
        held_out_fraction: Part that is held out.
        seed: Of the split; equal for equal seeds, whatever else the search does.

    Raises:
        DataError: There is no such data set, its folder is missing or empty, or it is too small to be split.
    """
    if name not in SOURCES:
        raise DataError(unknown_name("data set", name, SOURCES))
    source = SOURCES[name](input_shape, data_dir, download)
    weights, architecture, held_out = split_indices(source.labels, arch_fraction, held_out_fraction, seed)
    return DataSplits(
        weights=Subset(source.train, weights),
        architecture=Subset(source.train, architecture),
        finalists=Subset(source.plain, architecture),
        held_out=Subset(source.plain, held_out),
        statistics=Subset(source.plain, weights),
        num_classes=source.num_classes,
        training=Subset(source.train, sorted([*weights, *architecture])),
        test=source.test,
        natural=source.natural,
    )


def split_indices(
    labels: Sequence[int], arch_fraction: float, held_out_fraction: float, seed: int
) -> tuple[list[int], list[int], list[int]]:
    """Seeded, stratified split into weight-training, architecture-training and held-out indices.

    Raises:
        DataError: A class has too few images for three parts.
    """
    from sklearn.model_selection import train_test_split

    if not 0 < arch_fraction < 1 or not 0 < held_out_fraction < 1 or arch_fraction + held_out_fraction >= 1:
        raise DataError(
            "arch_fraction and held_out_fraction must be between 0 and 1 and leave images for weight training, "
            f"got {arch_fraction} and {held_out_fraction}"
        )
    targets = np.asarray(labels)
    everything = np.arange(len(targets))
    try:
        rest, held_out = train_test_split(
            everything, test_size=round(held_out_fraction * len(targets)), random_state=seed, stratify=targets
        )
        weights, architecture = train_test_split(
            rest, test_size=round(arch_fraction * len(targets)), random_state=seed, stratify=targets[rest]
        )
    except ValueError as reason:
        raise DataError(f"{len(targets)} images cannot be split into three parts: {reason}") from reason
    return sorted(weights.tolist()), sorted(architecture.tolist()), sorted(held_out.tolist())


def _digits(input_shape: tuple[int, int, int], _data_dir: Path | None, _download: bool) -> DataSource:
    """scikit-learn's 1,797 handwritten digits, 8 x 8, resized; embedded in the package."""
    from sklearn.datasets import load_digits

    channels, height, width = input_shape
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)  # (1797, 1, 8, 8)
    images = functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    images = ((images - images.mean()) / images.std()).repeat(1, channels, 1, 1)
    labels = digits.target.tolist()
    tensors = cast(ImageDataset, TensorDataset(images, torch.tensor(labels)))
    return DataSource(tensors, tensors, labels, 10, natural=False)


def _cifar(class_name: str) -> Callable[[tuple[int, int, int], Path | None, bool], DataSource]:
    def load(input_shape: tuple[int, int, int], data_dir: Path | None, download: bool) -> DataSource:
        from torchvision import datasets
        from torchvision.transforms import v2

        folder = _existing(data_dir, class_name.lower(), may_be_made=download)
        _need_colour(input_shape, class_name.lower())
        size = input_shape[1:]
        finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_CIFAR_STATISTICS)]
        if size != (32, 32):
            finish.insert(1, v2.Resize(size))
        augment = [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()]
        dataset = getattr(datasets, class_name)
        try:
            train = dataset(folder, train=True, download=download, transform=v2.Compose([*augment, *finish]))
            plain = dataset(folder, train=True, transform=v2.Compose(finish))
            test = dataset(folder, train=False, transform=v2.Compose(finish))
        except RuntimeError as reason:
            raise DataError(
                f"no {class_name.lower()} in {folder}: {reason}. Put torchvision's files there or set download: true"
            ) from reason
        return DataSource(train, plain, list(train.targets), len(train.classes), test)

    return load


def _imagefolder(input_shape: tuple[int, int, int], data_dir: Path | None, _download: bool) -> DataSource:
    """ImageNet's layout: `<data_dir>/train/<class>/<image>`, and `val` in the same way where there is a test part."""
    from torchvision import datasets
    from torchvision.transforms import v2

    folder = _existing(data_dir, "imagefolder")
    _need_colour(input_shape, "imagefolder")
    if not (folder / "train").is_dir():
        raise DataError(f"data_dir {folder} has no folder 'train' with one folder of images for each class")
    size = input_shape[1]
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_IMAGENET_STATISTICS)]
    if size > 64:
        augment = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        centre = [v2.Resize(round(size / 0.875), antialias=True), v2.CenterCrop(size)]
    else:  # small images lose too much to a resized crop
        centre = [v2.Resize((size, size), antialias=True)]
        augment = [*centre, v2.RandomCrop(size, padding=size // 8), v2.RandomHorizontalFlip()]
    try:
        train = datasets.ImageFolder(str(folder / "train"), v2.Compose([*augment, *finish]))
        plain = datasets.ImageFolder(str(folder / "train"), v2.Compose([*centre, *finish]))
        held = folder / "val"
        test = datasets.ImageFolder(str(held), v2.Compose([*centre, *finish])) if held.is_dir() else None
    except FileNotFoundError as reason:
        raise DataError(f"data_dir {folder} holds no images: {reason}") from reason
    if test is not None and test.classes != train.classes:
        raise DataError(
            f"{held} and {folder / 'train'} must have the same folders of classes; one has {len(test.classes)}, the "
            f"other {len(train.classes)}"
        )
    return DataSource(train, plain, list(train.targets), len(train.classes), test)


def _arrays(input_shape: tuple[int, int, int], data_dir: Path | None, _download: bool) -> DataSource:
    """Images in memory: `data_dir` is an `.npz` file, see `image_arrays`."""
    if data_dir is None:
        raise DataError("data set arrays needs data_dir, the .npz file of its images and labels")
    if not data_dir.is_file():
        raise DataError(f"data_dir {data_dir} is no file; arrays needs the .npz file of its images and labels")
    train, plain, test = load_arrays(data_dir)
    found = tuple(train.images.shape[1:])
    if found != tuple(input_shape):
        raise DataError(
            f"the images of {data_dir} are of shape {found} (channels, height, width), but the space takes "
            f"{tuple(input_shape)}"
        )
    labels = train.labels.tolist()
    return DataSource(
        cast(ImageDataset, train), cast(ImageDataset, plain), labels, max(labels) + 1, cast(ImageDataset, test)
    )


def _existing(data_dir: Path | None, name: str, may_be_made: bool = False) -> Path:
    if data_dir is None:
        raise DataError(f"data set {name} needs data_dir, the folder of its files")
    if may_be_made:
        return data_dir
    if not data_dir.is_dir():
        raise DataError(f"data_dir {data_dir} does not exist; {name} needs the folder of its files")
    if not any(data_dir.iterdir()):
        raise DataError(f"data_dir {data_dir} is empty; {name} needs the folder of its files")
    return data_dir


def _need_colour(input_shape: tuple[int, int, int], name: str) -> None:
    if input_shape[0] != 3:
        raise DataError(f"data set {name} has 3 channels, but the space takes {input_shape[0]}")


SOURCES: dict[str, Callable[[tuple[int, int, int], Path | None, bool], DataSource]] = {
    "digits": _digits,
    "arrays": _arrays,
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "imagefolder": _imagefolder,
}
