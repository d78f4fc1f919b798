"""Random changes of training images.

`standard` is the usual augmentation of CIFAR (shifts by up to an eighth of the image) and of ImageNet (random resized
crops), with mirror images. `strong` is for few images: it also rotates, changes brightness, contrast and saturation,
and erases a part (Zhong et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode

from .preprocessing import Preprocessing

PADDING = 1 / 8  # largest shift of a small image, as a fraction of its height and width; for CIFAR 4 of 32 pixels
_ROTATION = 15  # degrees
_JITTER = 0.3
_ERASED = 0.25  # probability that a part of the image is erased


@dataclass(frozen=True)
class Augmentation:
    """Which random changes are made to training images.

    Attributes:
        kind: `none`, `standard` or `strong`.
        flip: Whether images are mirrored from left to right, with a probability of one half.
    """

    kind: Literal["none", "standard", "strong"] = "standard"
    flip: bool = True


class ImagePipeline:
    """Function that turns an image of mode RGB, L or F into the network's input.

    Args:
        preprocessing: Steps from an image to the input.
        augmentation: Random changes. With `none`, the function is `preprocessing.apply`.
    """

    def __init__(self, preprocessing: Preprocessing, augmentation: Augmentation) -> None:
        self._preprocessing = preprocessing
        self._moves = None if augmentation.kind == "none" else _moves(preprocessing, augmentation)
        self._vary, self._erase = photometric(preprocessing.channels, augmentation)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the input, float32 of shape (channels, height, width)."""
        if self._moves is None:
            return torch.from_numpy(self._preprocessing.apply(image))
        for move in self._moves:
            image = move(image)
        values = self._vary(torch.from_numpy(self._preprocessing.scaled(image)))
        return self._erase(torch.from_numpy(self._preprocessing.normalised(values.numpy())))


def photometric(
    channels: int, augmentation: Augmentation
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Return the random changes of `strong` as two functions of one image; without `strong`, both change nothing.

    Args:
        channels: Channels of the images. Colours are changed with 1 or 3 only.
        augmentation: Random changes.

    Returns:
        A function of values between 0 and 1, and a function of normalised values, of shape (channels, height, width).
    """
    if augmentation.kind != "strong":
        return _same, _same
    changes: list[Any] = [v2.RandomRotation(_ROTATION, interpolation=InterpolationMode.BILINEAR)]
    if channels in (1, 3):
        changes.append(v2.ColorJitter(_JITTER, _JITTER, _JITTER if channels == 3 else None))
    return v2.Compose(changes), v2.RandomErasing(_ERASED)


def _same(values: Tensor) -> Tensor:
    return values


def _moves(preprocessing: Preprocessing, augmentation: Augmentation) -> list[Callable[[Image.Image], Image.Image]]:
    size = (preprocessing.height, preprocessing.width)
    filter_ = InterpolationMode(preprocessing.interpolation)
    steps: list[Any] = []
    if preprocessing.resize == "cover":
        steps.append(v2.RandomResizedCrop(size, interpolation=filter_, antialias=True))
    else:  # random resized crops discard too much of a small image
        fits = (preprocessing.resize_height, preprocessing.resize_width) == size
        shift = [round(preprocessing.width * PADDING), round(preprocessing.height * PADDING)] if fits else None
        steps += [preprocessing.resized, v2.RandomCrop(size, padding=shift)]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    return steps
