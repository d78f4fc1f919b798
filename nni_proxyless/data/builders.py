"""Creates a data source from images in memory, or from a data set whose images are read one by one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import DataError, clipped
from .augmentation import Augmentation, ImagePipeline
from .image_arrays import ArrayImages, statistics_of
from .item_images import ItemImages, as_image, labels_of, pair_of, sampled_statistics
from .preprocessing import Preprocessing
from .request import DataSource, ImageDataset, Request, Statistics

_log = logging.getLogger(__name__)
_LISTED = 5
_MEMORY_BYTES = 512 * 2**20  # of images of a data set that are kept in memory
Part = tuple[Tensor, Tensor]


def numbered(count: int) -> tuple[str, ...]:
    """Return names for classes that have none: their numbers."""
    return tuple(map(str, range(count)))


def need_picture_channels(request: Request) -> None:
    """Check that a network takes images of 1 or 3 channels.

    Raises:
        DataError: It takes neither 1 channel nor 3.
    """
    channels = request.input_shape[0]
    if channels not in (1, 3):
        raise DataError(
            f"data set {request.name} has 3 channels, or 1 in grey, but the space takes {channels}; set input_channels"
        )


def in_memory(
    part: Part, preprocessing: Preprocessing, augmentation: Augmentation
) -> tuple[ImageDataset, ImageDataset]:
    """Return images in memory as a data set with augmentation, and as one without.

    Args:
        part: Images, uint8 or float32 between 0 and 1, of the network's input shape, and their classes.
        preprocessing: Preprocessing, of which mean and standard deviation are applied.
        augmentation: Random changes.
    """
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    sets = (ArrayImages(*part, mean, std, one) for one in (augmentation, Augmentation("none")))
    train, plain = (cast(ImageDataset, one) for one in sets)
    return train, plain


def fitted(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resize and crop images in memory to the network's input.

    Args:
        images: Images, uint8 of shape (count, channels, height, width), with 1 or 3 channels if they are resized.
        preprocessing: How images are resized and cropped.

    Returns:
        Images, uint8 of shape (count, channels, input height, input width).
    """
    if _is_kept(images, preprocessing):
        return images
    found = np.empty((len(images), *preprocessing.input_shape), np.uint8)
    for index, one in enumerate(images.permute(0, 2, 3, 1).numpy()):
        picture = Image.fromarray(one[..., 0] if one.shape[2] == 1 else np.ascontiguousarray(one))
        picture = preprocessing.cropped(preprocessing.resized(picture))
        found[index] = np.asarray(picture).reshape(*picture.size[::-1], -1).transpose(2, 0, 1)
    return torch.from_numpy(found)


def _is_kept(images: Tensor, preprocessing: Preprocessing) -> bool:
    """Whether images in memory are neither resized nor cropped."""
    resized = (preprocessing.resize_height, preprocessing.resize_width)
    return tuple(images.shape[2:]) == resized == (preprocessing.height, preprocessing.width)


def source_of_arrays(
    request: Request,
    train: Part,
    held_out: Part | None,
    test: Part | None,
    classes: tuple[str, ...] | None,
    name: str,
    refuse: bool,
) -> DataSource:
    """Make a source of images in memory.

    Args:
        request: What is loaded.
        train: Training images and their classes. Images are uint8 of shape (count, channels, height, width), or floats
            that are the network's input.
        held_out: Images to validate on in the same form, if there are any.
        test: Test images in the same form, if there are any.
        classes: Names of the classes, if they have names.
        name: Name of the images in error messages.
        refuse: Whether images of another size are refused instead of being resized.

    Raises:
        DataError: The images do not fit the network or each other, or a class has no name.
    """
    found, wanted = tuple(train[0].shape[1:]), tuple(request.input_shape)
    if found != wanted and ((found[2], found[0], found[1]) == wanted or (found[1] in (1, 3) and found[0] > 4)):
        raise DataError(
            f"{name} are {len(train[0])} of shape {(found[1], found[2], found[0])}, which seems to have the channels "
            "before height and width; they must be of shape (count, height, width, channels): "
            "images.transpose(0, 2, 3, 1)"
        )
    if found[0] != request.input_shape[0] or (refuse and found != tuple(request.input_shape)):
        raise DataError(
            f"{name} are of shape {found} (channels, height, width), but the space takes {tuple(request.input_shape)}; "
            f"set input_channels: {found[0]} and input_size: [{found[1]}, {found[2]}], or resize: stretch"
        )
    parts = [part for part in (train, held_out, test) if part is not None]
    for other in parts[1:]:
        if other[0].shape[1] != found[0] or other[0].dtype != train[0].dtype:
            raise DataError(f"{name}: each part must have images of {found[0]} channels and type {train[0].dtype}")
    if train[0].is_floating_point():
        unknown = request.preprocessing(([0.0], [1.0]), known=False)
        zeros, ones = (0.0,) * found[0], (1.0,) * found[0]
        preprocessing = replace(unknown, resize="none", mean=zeros, std=ones)
        augmentation = Augmentation("none")
    else:
        # Images in memory are as large as they are meant to be, so that they are not cropped by default.
        own = request.settings.model_copy(update={"resize": request.settings.resize or "stretch"})
        request = replace(request, settings=own)
        steps = request.preprocessing(([0.0], [1.0]))
        if found[0] not in (1, 3) and not all(_is_kept(images, steps) for images, _ in parts):
            raise DataError(f"{name} have {found[0]} channels, and only images with 1 or 3 can be resized")
        parts = [(fitted(images, steps), labels) for images, labels in parts]
        normal = request.preprocessing(statistics_of(parts[0][0]))
        preprocessing = replace(steps, mean=normal.mean, std=normal.std)
        augmentation = request.augmentation()
    sets = [in_memory(part, preprocessing, augmentation) for part in parts]
    labels = parts[0][1].tolist()
    names = _class_names(classes, labels, name)
    others = sets[1:]
    other_labels = [part[1].tolist() for part in parts[1:]]
    for values in other_labels:
        _check_labels(values, names, name)
    plain_held = others.pop(0)[1] if held_out is not None else None
    return DataSource(
        sets[0][0], sets[0][1], labels, len(names), others[0][1] if others else None, preprocessing, names,
        plain_held, other_labels[0] if held_out is not None else (),
    )  # fmt: skip


def source_of_items(
    request: Request,
    train: Any,
    held_out: Any,
    test: Any,
    classes: tuple[str, ...] | None,
    directed: bool,
    statistics: Statistics | None = None,
) -> DataSource:
    """Make a source of data sets whose images come one by one. Small images are kept in memory.

    Args:
        request: What is loaded.
        train: Training images: pairs of an image and its class (see `ItemImages`).
        held_out: Images to validate on in the same form, if there are any.
        test: Test images in the same form, if there are any.
        classes: Names of the classes, if they have names.
        directed: Whether images are not mirrored by default.
        statistics: Default of mean and standard deviation. Without it, they are those of the training images.

    Raises:
        DataError: An image or a class is of another kind.
    """
    need_picture_channels(request)
    shape, name = request.input_shape, f"data {request.name}"
    labels = labels_of(train, name)
    names = _class_names(classes, labels, name)
    parts: list[tuple[Any, Sequence[int]] | None] = [(train, labels)]
    for part, label in ((held_out, "held_out"), (test, "test")):
        own = None if part is None else labels_of(part, f"{name}: {label}")
        if own is not None:
            _check_labels(own, names, f"{name}: {label}")
        parts.append(None if own is None else (part, own))
    first = as_image(pair_of(train, 0, name)[0], shape, f"{name}: image 0")
    if isinstance(first, Tensor):
        zeros, ones = (0.0,) * shape[0], (1.0,) * shape[0]
        preprocessing = replace(request.preprocessing(([0.0], [1.0]), known=False), resize="none", mean=zeros, std=ones)
    else:
        steps = request.preprocessing(([0.0], [1.0]))

        def values_of(value: Any) -> Any:
            image = as_image(value, shape, name)
            return image if isinstance(image, Tensor) else steps.scaled(steps.cropped(steps.resized(image)))

        preprocessing = request.preprocessing(statistics or sampled_statistics(train, labels, values_of, name))
    augmentation = request.augmentation(directed)
    known = [part for part in parts if part is not None]
    collect = _fits_into_memory(preprocessing, first, sum(len(part[1]) for part in known))

    def sets_of(part: tuple[Any, Sequence[int]]) -> tuple[ImageDataset, ImageDataset]:
        if collect:
            return in_memory(_collected(part, preprocessing, name), preprocessing, augmentation)
        train, plain = (
            cast(ImageDataset, ItemImages(*part, shape, ImagePipeline(preprocessing, one), name))
            for one in (augmentation, Augmentation("none"))
        )
        return train, plain

    sets = [None if part is None else sets_of(part) for part in parts]
    assert sets[0] is not None
    return DataSource(
        sets[0][0], sets[0][1], labels, len(names), None if sets[2] is None else sets[2][1], preprocessing, names,
        None if sets[1] is None else sets[1][1], () if parts[1] is None else parts[1][1],
    )  # fmt: skip


def _fits_into_memory(preprocessing: Preprocessing, first: Image.Image | Tensor, count: int) -> bool:
    if isinstance(first, Tensor) or first.mode == "F" or preprocessing.resize != "stretch":
        return False
    whole = (preprocessing.resize_height, preprocessing.resize_width) == (preprocessing.height, preprocessing.width)
    return whole and count * preprocessing.channels * preprocessing.height * preprocessing.width <= _MEMORY_BYTES


def _collected(part: tuple[Any, Sequence[int]], preprocessing: Preprocessing, name: str) -> Part:
    items, labels = part
    found = np.empty((len(labels), *preprocessing.input_shape), np.uint8)
    for index in range(len(labels)):
        image = as_image(pair_of(items, index, name)[0], preprocessing.input_shape, f"{name}: image {index}")
        if isinstance(image, Tensor) or image.mode == "F":
            raise DataError(f"{name}: image {index} is of another kind than the first one")
        values = np.asarray(preprocessing.resized(image))
        found[index] = values[np.newaxis] if values.ndim == 2 else values.transpose(2, 0, 1)
    return torch.from_numpy(found), torch.tensor(labels)


def _class_names(classes: tuple[str, ...] | None, labels: Sequence[int], name: str) -> tuple[str, ...]:
    names = numbered(max(labels) + 1) if classes is None else classes
    _check_labels(labels, names, name)
    if max(labels) >= len(labels):
        raise DataError(f"{name} has class {max(labels)}, but only {len(labels)} images; classes must count from 0")
    empty = sorted(set(range(len(names))) - set(labels))
    if empty:
        listed = ", ".join(names[c] for c in empty[:_LISTED]) + (" and others" if len(empty) > _LISTED else "")
        if classes is None:
            raise DataError(
                f"{name} have no training image of class {listed}, but some of class {max(labels)}; classes must count "
                "from 0 without a gap"
            )
        _log.warning("%s have no training image of class %s, which the network cannot learn", name, clipped(listed))
    return names


def _check_labels(labels: Sequence[int], names: Sequence[str], name: str) -> None:
    if max(labels) >= len(names):
        raise DataError(f"{name} has class {max(labels)}, but there are only {len(names)} classes, counted from 0")
