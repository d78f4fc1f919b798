"""Small images in memory, such as those of one `.npz` file. They need no decoding, and are augmented in whole batches.

Reading CIFAR's images one by one would take longer than training a small network on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from ..errors import DataError
from .augmentation import PADDING as PADDING
from .augmentation import Augmentation, photometric
from .npz_file import read_arrays


class ArrayImages(Dataset[tuple[Tensor, Tensor]]):
    """Data set of images in memory, which are normalised, and optionally augmented, when they are read.

    Args:
        images: Images as uint8, or as float32 between 0 and 1, shape (count, channels, height, width).
        labels: Labels as int64, shape (count,).
        mean: Mean of each channel, for pixel values between 0 and 1, shape (channels,).
        std: Standard deviation of each channel on the same scale, shape (channels,).
        augment: Random changes. `True` flips each image at random and shifts it by up to an eighth of its height and
            width; `False` is none.
    """

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, augment: bool | Augmentation) -> None:
        self.images = images
        self.labels = labels
        self._mean = mean.view(-1, 1, 1)
        self._std = std.view(-1, 1, 1)
        self._augment = (
            augment if isinstance(augment, Augmentation) else Augmentation("standard" if augment else "none")
        )
        self._vary, self._erase = photometric(images.shape[1], self._augment)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        images, labels = self.batch([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Return several images and their labels at once. PyTorch's data loader calls this method if it exists."""
        return list(zip(*self.batch(indices), strict=True))

    def batch(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return images, float32 of shape (len(indices), channels, height, width), and their labels."""
        chosen = torch.as_tensor(indices)
        images = self.images[chosen]
        if self._augment.kind != "none":
            images = _shifted_and_flipped(images, self._augment.flip)
        values = images if images.is_floating_point() else images.float() / 255
        if self._augment.kind == "strong":
            values = torch.stack([self._vary(one) for one in values])
        values = (values - self._mean) / self._std
        if self._augment.kind == "strong":
            values = torch.stack([self._erase(one) for one in values])
        return values, self.labels[chosen]


def _shifted_and_flipped(images: Tensor, flip: bool) -> Tensor:
    count, _, height, width = images.shape
    up, left = round(height * PADDING), round(width * PADDING)
    padded = functional.pad(images, (left, left, up, up))
    rows = torch.randint(0, 2 * up + 1, (count, 1)) + torch.arange(height)  # (count, height)
    columns = torch.randint(0, 2 * left + 1, (count, 1)) + torch.arange(width)
    if flip:
        columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)  # (count, width)
    which = torch.arange(count).view(-1, 1, 1)
    found = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]  # (count, height, width, channels)
    return found.permute(0, 3, 1, 2)


def statistics_of(images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, for values between 0 and 1.

    Args:
        images: Images as uint8, or as float32 between 0 and 1, shape (count, channels, height, width).
    """
    pixels = images.transpose(0, 1).flatten(1)
    pixels = pixels if pixels.is_floating_point() else pixels.float() / 255
    return pixels.mean(1).tolist(), pixels.std(1).clamp_min(1e-6).tolist()


def read_parts(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Read the images and labels of a file.

    Args:
        path: Path of an `.npz` file. It contains `images`, uint8 of shape (count, height, width) or (count, height,
            width, channels), and `labels`, integers from 0. If there is a test set, the file also contains
            `test_images` and `test_labels`.

    Returns:
        Training images, uint8 of shape (count, channels, height, width), and their labels, int64; and those of the
        test part, or `None`.

    Raises:
        DataError: The file cannot be read or does not contain these arrays.
    """
    arrays = read_arrays(path, ("images", "labels", "test_images", "test_labels"))
    train = checked_part(arrays, "", str(path))
    return train, checked_test(arrays, train, str(path)) if "test_images" in arrays else None


def load_arrays(path: Path) -> tuple[ArrayImages, ArrayImages, ArrayImages | None]:
    """Load the images of a file, normalised by the mean and standard deviation of the training images.

    Args:
        path: Path of an `.npz` file; see `read_parts`.

    Returns:
        Training images with augmentation, the same images without augmentation, and the test images or `None`.

    Raises:
        DataError: The file cannot be read or does not contain these arrays.
    """
    (images, labels), test = read_parts(path)
    mean, std = (torch.tensor(values) for values in statistics_of(images))
    return (
        ArrayImages(images, labels, mean, std, augment=True),
        ArrayImages(images, labels, mean, std, augment=False),
        None if test is None else ArrayImages(*test, mean, std, augment=False),
    )


def checked_test(arrays: dict[str, np.ndarray], train: tuple[Tensor, Tensor], source: str) -> tuple[Tensor, Tensor]:
    """Check the arrays `test_images` and `test_labels`, and return them as tensors; see `checked_part`.

    Raises:
        DataError: They are missing, wrong, or do not fit the training images.
    """
    images, labels = checked_part(arrays, "test_", source)
    if images.shape[1:] != train[0].shape[1:]:
        raise DataError(
            f"{source}: 'test_images' must be of the shape of 'images', {tuple(train[0].shape[1:])} (channels, height, "
            f"width), got {tuple(images.shape[1:])}"
        )
    if int(labels.max()) > int(train[1].max()):
        raise DataError(f"{source}: 'test_labels' has class {int(labels.max())}, which 'labels' does not have")
    return images, labels


def _advice(images: np.ndarray) -> str:
    """Say how images of another type become uint8."""
    if images.size == 0 or images.dtype.kind not in "biuf" or images.ndim not in (3, 4):
        return ""
    low, high = float(images.min()), float(images.max())
    how = "(255 * images).round().astype('uint8')" if high <= 1 else "images.astype('uint8')"
    return f" with values from {low:g} to {high:g}" + (f": {how} converts them" if 0 <= low <= high <= 255 else "")


def checked_part(arrays: dict[str, np.ndarray], prefix: str, source: str) -> tuple[Tensor, Tensor]:
    """Check images and labels, and return them as tensors.

    Args:
        arrays: Arrays by name.
        prefix: Beginning of the two names, such as `test_`.
        source: Name of their origin in error messages.

    Returns:
        Images, uint8 of shape (count, channels, height, width), and labels, int64 of shape (count,).

    Raises:
        DataError: One is missing, or has the wrong type, shape or values.
    """
    for name in (f"{prefix}images", f"{prefix}labels"):
        if name not in arrays:
            raise DataError(f"{source} has no array '{name}'; it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{source}: '{prefix}images' must be uint8 of shape (count, height, width) or (count, height, width, "
            f"channels), none of them 0, got {images.dtype} of shape {images.shape}{_advice(images)}"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.size == 0:
        raise DataError(
            f"{source}: '{prefix}labels' must be whole numbers, one for each of the {len(images)} images, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise DataError(f"{source}: '{prefix}labels' must count classes from 0, got {labels.min()}")
    count = len(labels)
    if not prefix and labels.max() >= count:
        raise DataError(
            f"{source}: 'labels' must have an image of each class from 0, got {labels.max()} of {count} images"
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
