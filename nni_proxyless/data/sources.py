"""Loading of data sets by name, before they are split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from ..errors import DataError
from .folders import arrays_file, existing_folder, training_folder
from .image_arrays import load_arrays

ImageDataset = Dataset[tuple[Tensor, Any]]


_CIFAR_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


_IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class DataSource:
    """A training set before it is split.

    Attributes:
        train: Training images with augmentation, except that `digits` has none.
        plain: The same images in the same order, without augmentation.
        labels: Class of each image.
        num_classes: Number of classes.
        test: The data set's own test set, which is never split; `None` if there is none.
    """

    train: ImageDataset
    plain: ImageDataset
    labels: Sequence[int]
    num_classes: int
    test: ImageDataset | None = None


def _digits(input_shape: tuple[int, int, int], _data_dir: Path | None, _download: bool) -> DataSource:
    """scikit-learn's 1,797 handwritten digits, resized from 8 x 8. They are part of scikit-learn's package."""
    from sklearn.datasets import load_digits

    channels, height, width = input_shape
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)  # (1797, 1, 8, 8)
    images = functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    images = ((images - images.mean()) / images.std()).repeat(1, channels, 1, 1)
    labels = digits.target.tolist()
    tensors = cast(ImageDataset, TensorDataset(images, torch.tensor(labels)))
    return DataSource(tensors, tensors, labels, 10)


def _cifar(class_name: str) -> Callable[[tuple[int, int, int], Path | None, bool], DataSource]:
    def load(input_shape: tuple[int, int, int], data_dir: Path | None, download: bool) -> DataSource:
        from torchvision import datasets
        from torchvision.transforms import v2

        folder = existing_folder(data_dir, class_name.lower(), may_be_made=download)
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
    """Images in ImageNet's layout: `<data_dir>/train/<class>/<image>`, and optionally `val` in the same layout."""
    from torchvision import datasets
    from torchvision.transforms import v2

    folder = training_folder(data_dir).parent
    _need_colour(input_shape, "imagefolder")
    size = input_shape[1]
    finish = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*_IMAGENET_STATISTICS)]
    if size > 64:
        augment = [v2.RandomResizedCrop(size, antialias=True), v2.RandomHorizontalFlip()]
        centre = [v2.Resize(round(size / 0.875), antialias=True), v2.CenterCrop(size)]
    else:  # random resized crops discard too much of a small image
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
    """Images in memory. `data_dir` is the path of an `.npz` file; see `image_arrays`."""
    train, plain, test = load_arrays(arrays_file(data_dir))
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
