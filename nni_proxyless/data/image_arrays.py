"""Small images in memory, read from one `.npz` file. They need no decoding, and whole batches are augmented at once.

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
from .npz_file import read_arrays

PADDING = 1 / 8  # largest shift of an image, as a fraction of its height; for CIFAR the usual 4 of 32 pixels


class ArrayImages(Dataset[tuple[Tensor, Tensor]]):
    """Data set of uint8 images in memory, which are normalised, and optionally augmented, when they are read.

    Args:
        images: Images as uint8, shape (count, channels, height, width).
        labels: Labels as int64, shape (count,).
        mean: Mean of each channel, for pixel values between 0 and 1, shape (channels,).
        std: Standard deviation of each channel on the same scale, shape (channels,).
        augment: Whether each image is randomly flipped and shifted by up to an eighth of its height.
    """

    def __init__(self, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor, augment: bool) -> None:
        self.images = images
        self.labels = labels
        self._mean = mean.view(-1, 1, 1)
        self._std = std.view(-1, 1, 1)
        self._augment = augment

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
        if self._augment:
            images = _shifted_and_flipped(images)
        return (images.float() / 255 - self._mean) / self._std, self.labels[chosen]


def _shifted_and_flipped(images: Tensor) -> Tensor:
    count, _, height, width = images.shape
    pad = round(height * PADDING)
    padded = functional.pad(images, (pad, pad, pad, pad))
    rows = torch.randint(0, 2 * pad + 1, (count, 1)) + torch.arange(height)  # (count, height)
    columns = torch.randint(0, 2 * pad + 1, (count, 1)) + torch.arange(width)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns.flip(1), columns)  # (count, width)
    which = torch.arange(count).view(-1, 1, 1)
    found = padded[which, :, rows.unsqueeze(2), columns.unsqueeze(1)]  # (count, height, width, channels)
    return found.permute(0, 3, 1, 2)


def load_arrays(path: Path) -> tuple[ArrayImages, ArrayImages, ArrayImages | None]:
    """Load the images of a file.

    Args:
        path: Path of an `.npz` file. It contains `images`, uint8 of shape (count, height, width) or (count, height,
            width, channels), and `labels`, integers from 0. If there is a test set, the file also contains
            `test_images` and `test_labels`.

    Returns:
        Training images with augmentation, the same images without augmentation, and the test images or `None`.

    Raises:
        DataError: The file cannot be read or does not contain these arrays.
    """
    arrays = read_arrays(path, ("images", "labels", "test_images", "test_labels"))
    images, labels = _part(arrays, "", path)
    pixels = images.transpose(0, 1).flatten(1).float() / 255
    mean, std = pixels.mean(1), pixels.std(1).clamp_min(1e-6)
    test = None
    if "test_images" in arrays:
        test_images, test_labels = _part(arrays, "test_", path)
        if test_images.shape[1:] != images.shape[1:]:
            raise DataError(
                f"{path}: 'test_images' must be of the shape of 'images', {tuple(images.shape[1:])} (channels, height, "
                f"width), got {tuple(test_images.shape[1:])}"
            )
        if int(test_labels.max()) > int(labels.max()):
            raise DataError(f"{path}: 'test_labels' has class {int(test_labels.max())}, which 'labels' has not")
        test = ArrayImages(test_images, test_labels, mean, std, augment=False)
    return (
        ArrayImages(images, labels, mean, std, augment=True),
        ArrayImages(images, labels, mean, std, augment=False),
        test,
    )


def _part(arrays: dict[str, np.ndarray], prefix: str, path: Path) -> tuple[Tensor, Tensor]:
    for name in (f"{prefix}images", f"{prefix}labels"):
        if name not in arrays:
            raise DataError(f"{path} has no array '{name}'; it has {', '.join(sorted(arrays)) or 'none'}")
    images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{path}: '{prefix}images' must be uint8 of shape (count, height, width) or (count, height, width, "
            f"channels), none of them 0, got {images.dtype} of shape {images.shape}"
        )
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.size == 0:
        raise DataError(
            f"{path}: '{prefix}labels' must be whole numbers, one for each of the {len(images)} images, "
            f"got {labels.dtype} of shape {labels.shape}"
        )
    if labels.min() < 0:
        raise DataError(f"{path}: '{prefix}labels' must count classes from 0, got {labels.min()}")
    count = len(labels)
    if not prefix and labels.max() >= count:
        raise DataError(
            f"{path}: 'labels' must have an image of each class from 0, got {labels.max()} of {count} images"
        )
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels.astype(np.int64))
