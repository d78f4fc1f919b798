"""Data sets whose images come one by one, from torchvision or from a user's function, and what is read from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError, clipped, shown
from .pillow_images import converted

_SAMPLED = 2_000  # images from which mean and standard deviation are computed
_COMPARED = 20  # items that must agree with an attribute of classes


class ItemImages(Dataset[tuple[Tensor, int]]):
    """Data set of the images of another data set, which are converted and prepared when they are needed.

    Args:
        items: Data set of pairs of an image and its class. An image is a Pillow image, or uint8 as an array of shape
            (height, width) or (height, width, channels) or as a tensor of shape (channels, height, width); or float32
            as a tensor of the network's input shape, which is taken as it is.
        labels: Class of each image.
        input_shape: Channels, height and width of the network's input.
        prepare: Function from an image of mode RGB, L or F to the network's input.
        name: Name of the data set in error messages.
    """

    def __init__(
        self,
        items: Any,
        labels: Sequence[int],
        input_shape: tuple[int, int, int],
        prepare: Callable[[Image.Image], Tensor],
        name: str,
    ) -> None:
        self._items = items
        self._labels = labels
        self._shape = input_shape
        self._prepare = prepare
        self._name = name

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= len(self._labels):
            raise IndexError(index)
        found = as_image(pair_of(self._items, index, self._name)[0], self._shape, f"{self._name}: image {index}")
        return (found if isinstance(found, Tensor) else self._prepare(found)), self._labels[index]


def as_image(value: Any, input_shape: tuple[int, int, int], named: str) -> Image.Image | Tensor:
    """Return an item of a data set as an image of mode RGB, L or F, or as the network's input if it is already that.

    Args:
        value: Image of any kind that `ItemImages` takes.
        input_shape: Channels, height and width of the network's input.
        named: Name of the image in error messages.

    Raises:
        DataError: It is something else, or has another shape.
    """
    channels = input_shape[0]
    if isinstance(value, Tensor) and value.is_floating_point():
        if tuple(value.shape) != tuple(input_shape):
            raise DataError(f"{named} is a tensor of shape {tuple(value.shape)}, but the space takes {input_shape}")
        if not bool(value.isfinite().all()):
            raise DataError(f"{named} has values that are infinite or not a number")
        return value.float()
    if isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 3:
        value = value.permute(1, 2, 0).numpy()
    if isinstance(value, np.ndarray) and value.dtype == np.uint8 and value.ndim in (2, 3):
        value = value[..., 0] if value.ndim == 3 and value.shape[2] == 1 else value
        if value.ndim == 3 and value.shape[2] not in (3, 4):
            raise DataError(f"{named} is an array of shape {value.shape}; its channels, 1, 3 or 4, must come last")
        value = Image.fromarray(value)
    if not isinstance(value, Image.Image):
        kind = f"{value.dtype} of shape {tuple(value.shape)}" if hasattr(value, "dtype") else type(value).__name__
        raise DataError(
            f"{named} is {clipped(kind)}; it must be a Pillow image, uint8 of shape (height, width, channels), or a "
            f"float tensor of shape {input_shape}"
        )
    try:
        return converted(value, channels)
    except DataError as reason:
        raise DataError(f"{named} {reason}") from reason


def labels_of(items: Any, name: str) -> list[int]:
    """Return the class of each item of a data set.

    They are the attribute `targets` or `labels` if the data set has one and evenly spread items agree with it.
    Otherwise each item is read.

    Raises:
        DataError: The data set has no length or items, an item is not a pair, or a class is not a whole number from 0.
    """
    try:
        count = len(items)
    except (TypeError, NotImplementedError) as reason:
        raise DataError(f"{name} has no length; return data sets that have one, or arrays") from reason
    if count == 0:
        raise DataError(f"{name} has no images")
    for attribute in ("targets", "labels", "_labels"):
        known = getattr(items, attribute, None)
        if known is None or callable(known):
            continue
        try:
            values = [_label(one, name, i) for i, one in enumerate(_listed(known))]
        except (DataError, TypeError):  # names of the classes, for example
            continue
        compared = {i * (count - 1) // max(_COMPARED - 1, 1) for i in range(_COMPARED)}
        if len(values) == count and all(values[i] == _label(pair_of(items, i, name)[1], name, i) for i in compared):
            return values
    return [_label(pair_of(items, i, name)[1], name, i) for i in range(count)]


def _listed(values: Any) -> list[Any]:
    return values.tolist() if hasattr(values, "tolist") else list(values)


def pair_of(items: Any, index: int, name: str) -> tuple[Any, Any]:
    """Return the image and the class of an item of a user's data set.

    Raises:
        DataError: Its code fails, or it returns something else than a pair.
    """
    try:
        found = items[index]
    except DataError:
        raise
    except Exception as reason:
        detail = clipped(" ".join(str(reason).split()))
        raise DataError(f"{name}: item {index} failed with {type(reason).__name__}: {detail}") from reason
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise DataError(f"{name}: item {index} must be a pair of image and class, got {clipped(type(found).__name__)}")
    return found[0], found[1]


def _label(value: Any, name: str, index: int) -> int:
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, int) or plain < 0:
        raise DataError(f"{name}: the class of item {index} must be a whole number from 0, got {shown(value)}")
    return plain


def sampled_statistics(items: Any, labels: Sequence[int], values_of: Callable[[Any], Any], name: str) -> Any:
    """Return mean and standard deviation of each channel over evenly spread items.

    Args:
        items: Data set of pairs of an image and its class.
        labels: Class of each image.
        values_of: Function from an item's image to its values between 0 and 1, shape (channels, height, width).
        name: Name of the data set in error messages.

    Returns:
        Two lists, with a number for each channel.
    """
    count = min(_SAMPLED, len(labels))
    sums: Any = 0.0
    squares: Any = 0.0
    pixels = 0
    for i in range(count):
        values = np.asarray(values_of(pair_of(items, i * len(labels) // count, name)[0]), np.float64)
        sums, squares = sums + values.sum((1, 2)), squares + (values**2).sum((1, 2))
        pixels += values.shape[1] * values.shape[2]
    mean = sums / pixels
    return mean.tolist(), np.sqrt(np.maximum(squares / pixels - mean**2, 1e-12)).tolist()
