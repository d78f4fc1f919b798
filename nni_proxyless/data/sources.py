"""Loading of data sets by name, before they are split."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import DataError, unknown_name
from .augmentation import Augmentation, ImagePipeline
from .builders import in_memory, need_picture_channels, numbered, source_of_arrays, source_of_items
from .found_images import HELD
from .image_arrays import checked_part, read_parts
from .image_folder import ImageFiles, check_classes, check_files, list_folder, warn_of_copies
from .names import TORCHVISION, names_a_function
from .request import DataSource as DataSource
from .request import ImageDataset as ImageDataset
from .request import Request, Statistics
from .torchvision_sets import check_torchvision_name, load_torchvision
from .user_data import as_arrays, call_function

_log = logging.getLogger(__name__)
_CIFAR_STATISTICS: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
_CIFAR_GREY: Statistics = ((0.481,), (0.239,))  # of the images in grey
_IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_IMAGENET_GREY: Statistics = ((0.449,), (0.226,))  # the means of the three channels
_LARGE = 100.0  # values of a user's floats above it are probably pixels from 0 to 255
_DIGITS_SIZE = 32  # of networks that are named without a space; the images have 8 x 8 pixels


def load_source(request: Request) -> DataSource:
    """Load a data set.

    Raises:
        DataError: There is no such data set, or its files or images are missing, damaged, or do not fit.
    """
    if request.name in SOURCES:
        return SOURCES[request.name](request)
    if request.name.startswith(TORCHVISION):
        return _torchvision(request)
    if names_a_function(request.name):
        return _user(request)
    raise DataError(
        unknown_name("data set", request.name, SOURCES) + ", torchvision:Name such as torchvision:FashionMNIST, or "
        "package.module:function"
    )


def native_shape(request: Request) -> tuple[int, int, int] | None:
    """Return channels, height and width of a data set's images; `None` if they differ, or are photographs.

    Args:
        request: Data set; its `input_shape` is ignored.

    Raises:
        DataError: The data set cannot be loaded.
    """
    if request.name == "digits":
        return (1, _DIGITS_SIZE, _DIGITS_SIZE)
    if request.name.startswith("cifar"):
        return (3, 32, 32)
    if request.name == "imagefolder" or (":" not in request.name and request.name != "arrays"):
        return None
    if request.name == "arrays":
        images = read_parts(_npz(request))[0][0]
        return tuple(images.shape[1:])  # type: ignore[return-value]
    if request.name.startswith(TORCHVISION):
        first = load_torchvision(request.name.removeprefix(TORCHVISION), *_folder(request)).train
        sizes = {first[i][0].size for i in (0, len(first) // 2, len(first) - 1)}
        (width, height), channels = first[0][0].size, 1 if first[0][0].mode == "L" else 3
        return (channels, height, width) if len(sizes) == 1 else None
    train = _called(request).train
    arrays = as_arrays(train)
    if arrays is not None:
        shape = arrays[0].shape[1:]
        floats = np.issubdtype(arrays[0].dtype, np.floating)
        return tuple(shape) if floats else (shape[2] if len(shape) == 3 else 1, shape[0], shape[1])
    value = train[0][0]
    return tuple(value.shape) if isinstance(value, Tensor) and value.ndim == 3 else None  # type: ignore[return-value]


def _digits(request: Request) -> DataSource:
    """scikit-learn's 1,797 handwritten digits, resized from 8 x 8. They are part of scikit-learn's package."""
    from sklearn.datasets import load_digits

    channels, height, width = request.input_shape
    digits = load_digits()
    images = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)  # (1797, 1, 8, 8)
    images = functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    preprocessing = replace(
        request.preprocessing(([float(images.mean())], [float(images.std())])),
        resize="stretch", resize_height=height, resize_width=width, interpolation="bilinear",
    )  # fmt: skip
    kind = request.settings.augmentation or "none"
    augmentation = replace(request.augmentation(directed=True), kind=kind)
    labels = torch.tensor(digits.target)
    images = images.repeat(1, channels, 1, 1)
    train, plain = in_memory((images, labels), preprocessing, augmentation)
    return DataSource(train, plain, labels.tolist(), 10, None, preprocessing, numbered(10))


def _cifar(class_name: str) -> Callable[[Request], DataSource]:
    def load(request: Request) -> DataSource:
        need_picture_channels(request)
        folder, download = _folder(request)
        parts = load_torchvision(class_name, folder, download, request.name)
        statistics = _CIFAR_GREY if request.input_shape[0] == 1 else _CIFAR_STATISTICS
        return source_of_items(request, parts.train, None, parts.test, parts.classes, False, statistics)

    return load


def _torchvision(request: Request) -> DataSource:
    """A data set of torchvision, resized to the input, with mean and standard deviation of its training images."""
    name = request.name.removeprefix(TORCHVISION)
    check_torchvision_name(name)
    need_picture_channels(request)
    parts = load_torchvision(name, *_folder(request))
    return source_of_items(request, parts.train, None, parts.test, parts.classes, parts.directed)


def _imagefolder(request: Request) -> DataSource:
    """Images in ImageNet's layout: `<data_dir>/train/<class>/<image>`, and optionally `val` or `test` like it."""
    folder, _ = _folder(request)
    channels = request.input_shape[0]
    need_picture_channels(request)
    if not (folder / "train").is_dir():
        raise DataError(f"data_dir {folder} has no folder 'train' with one folder of images for each class")
    content = list_folder(folder / "train")
    preprocessing = request.preprocessing(_IMAGENET_GREY if channels == 1 else _IMAGENET_STATISTICS)
    train = ImageFiles(content, channels, ImagePipeline(preprocessing, request.augmentation()))
    plain = ImagePipeline(preprocessing, Augmentation("none"))
    test = None
    held = [folder / name for name in HELD if (folder / name).is_dir()]
    if held:
        found = list_folder(held[0])
        check_classes(content, found, (folder / "train", held[0]))
        check_files(found, channels)
        test = ImageFiles(found, channels, plain)
        warn_of_copies(content, found, held[0])
    for unused in held[1:]:
        _log.warning("%s is not used: the test images are those in %s", unused, held[0].name)
    check_files(content, channels)
    return DataSource(
        train, ImageFiles(content, channels, plain), content.labels, len(content.classes), test, preprocessing,
        content.classes,
    )  # fmt: skip


def _arrays(request: Request) -> DataSource:
    """Images in memory. `data_dir` is the path of an `.npz` file; see `image_arrays`."""
    path = _npz(request)
    train, test = read_parts(path)
    return source_of_arrays(
        request, train, None, test, None, f"the images of {path}", refuse=request.settings.resize is None
    )


def _user(request: Request) -> DataSource:
    """The data sets that a user's function returns, all in memory as arrays or all as data sets."""
    parts = _called(request)
    name = f"data {request.name}"
    given = [part for part in (parts.train, parts.held_out, parts.test) if part is not None]
    arrays = [as_arrays(part) for part in given]
    if all(pair is None for pair in arrays):
        return source_of_items(request, parts.train, parts.held_out, parts.test, parts.classes, False)
    if any(pair is None for pair in arrays):
        raise DataError(f"{name} must return arrays for each part, or data sets for each part, not both")
    tensors: list[tuple[Tensor, Tensor] | None] = []
    for label, part in (("train", parts.train), ("held_out", parts.held_out), ("test", parts.test)):
        tensors.append(None if part is None else _user_arrays(request, part, f"{name}: {label}"))
    assert tensors[0] is not None
    return source_of_arrays(
        request, tensors[0], tensors[1], tensors[2], parts.classes, f"the images of {name}", refuse=False
    )


def _called(request: Request) -> Any:
    arguments = {
        "input_shape": request.input_shape, "data_dir": request.data_dir, "download": request.download,
    }  # fmt: skip
    return call_function(request.name, arguments, request.folder)


def _user_arrays(request: Request, part: Any, name: str) -> tuple[Tensor, Tensor]:
    pair = as_arrays(part)
    assert pair is not None
    images, labels = pair
    if np.issubdtype(images.dtype, np.floating) and images.ndim == 4:
        if tuple(images.shape[1:]) != tuple(request.input_shape):
            raise DataError(
                f"{name} has floats of shape {images.shape[1:]}, but the space takes {request.input_shape}; return "
                "uint8 to have them resized"
            )
        high = float(np.abs(images).max(initial=0.0))
        if not np.isfinite(high):
            raise DataError(f"{name} has images with values that are infinite or not a number")
        if high > _LARGE:
            _log.warning(
                "%s has floats up to %g, which are the network's input as they are; return uint8 to have them "
                "normalised, or divide them by 255", name, high,
            )  # fmt: skip
        checked = checked_part({"images": np.zeros(images[:, 0].shape, np.uint8), "labels": labels}, "", name)[1]
        return torch.from_numpy(images.astype(np.float32)), checked
    return checked_part({"images": images, "labels": labels}, "", name)


def _npz(request: Request) -> Path:
    path = request.data_dir
    if path is None:
        raise DataError("data set arrays needs data_dir, the .npz file of its images and labels")
    if not path.is_file():
        raise DataError(f"data_dir {path} is not a file; arrays needs the .npz file of its images and labels")
    return path


def _folder(request: Request) -> tuple[Path, bool]:
    """Return the folder of a data set's files, and whether it may be downloaded."""
    folder, name = request.data_dir, request.name
    if folder is None:
        raise DataError(f"data set {name} needs data_dir, the folder of its files")
    if request.download and name != "imagefolder":
        return folder, True
    if not folder.is_dir():
        raise DataError(f"data_dir {folder} does not exist; {name} needs the folder of its files")
    if not any(folder.iterdir()):
        raise DataError(f"data_dir {folder} is empty; {name} needs the folder of its files")
    return folder, False


SOURCES: dict[str, Callable[[Request], DataSource]] = {
    "digits": _digits,
    "arrays": _arrays,
    "cifar10": _cifar("CIFAR10"),
    "cifar100": _cifar("CIFAR100"),
    "imagefolder": _imagefolder,
}
