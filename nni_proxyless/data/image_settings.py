"""Settings of the images: preprocessing, augmentation and the weights of classes. Recipes take them as keys.

This module imports neither torch nor Pillow, so that a recipe can be checked without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from ..errors import shown
from ..files.settings import CheckedSettings, PartUpTo1
from ..values import MOST_NUMBER, is_number

_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_NOTHING = {"type": "null"}
_WEIGHT = {"type": "number", "minimum": 0}


def _numbers(value: Any) -> Any:
    """Check the mean or the standard deviation of the channels: one number, or a list of them."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if value is None:
        return None
    if not values or not all(is_number(one, -MOST_NUMBER, MOST_NUMBER) for one in values):
        raise ValueError(f"'mean' and 'std' must be a number or a list with one for each channel, got {shown(value)}")
    return [float(one) for one in values]


def _class_weights(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    weights = value.values() if isinstance(value, Mapping) else value
    good = isinstance(value, (list, tuple, Mapping)) and len(value) > 0
    if not good or not all(is_number(one, 0, MOST_NUMBER) for one in weights) or not any(weights):
        raise ValueError(
            "'class_weights' must be balanced, a list with a number from 0 for each class, or a mapping from names of "
            f"classes to such numbers, got {shown(value)}"
        )
    return {str(k): float(v) for k, v in value.items()} if isinstance(value, Mapping) else [float(v) for v in weights]


Numbers = Annotated[Any, BeforeValidator(_numbers), WithJsonSchema({"anyOf": [{"type": "number"}, _NUMBERS, _NOTHING]})]
ClassWeights = Annotated[
    Any,
    BeforeValidator(_class_weights),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "balanced"},
                {"type": "array", "items": _WEIGHT, "minItems": 1},
                {"type": "object", "additionalProperties": _WEIGHT},
                _NOTHING,
            ]
        }
    ),
]


class ImageSettings(CheckedSettings):
    """Settings of preprocessing, augmentation and class weights, which searches and retrainings share."""

    resize: Literal["stretch", "cover"] | None = None
    """How an image is resized to the network's input size: `stretch` changes its proportions, `cover` keeps them and
    crops the excess. Default: `stretch` up to 64 pixels, `cover` above
    ([your_own.md](your_own.md#from-a-file-to-the-networks-input))."""

    crop: PartUpTo1 | None = None
    """Fraction of the resized image's height and width that the crop in the centre keeps. Default: 0.875 with `cover`,
    1 with `stretch`."""

    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    """Resizing filter, by Pillow's name."""

    mean: Numbers = None
    """Mean that is subtracted from each channel, for values between 0 and 1. Default: ImageNet's for `imagefolder`,
    CIFAR's for `cifar10` and `cifar100`, and that of the training images for other data."""

    std: Numbers = None
    """Standard deviation by which each channel is divided, for values between 0 and 1. Default: as for `mean`."""

    augmentation: Literal["none", "standard", "strong"] | None = None
    """Random changes of training images. `standard` flips images, and crops or shifts them. `strong`, for few images,
    also rotates them, changes brightness and contrast, and erases a part. Default: `standard`, and `none` for
    `digits`."""

    flip: bool | None = None
    """Whether the augmentation mirrors images from left to right. Default: true, except for torchvision's data sets of
    digits, letters and traffic signs."""

    class_weights: ClassWeights = None
    """Weight of each class in the training loss, as in PyTorch's cross-entropy: a list in the order of the classes, a
    mapping from names of classes, or `balanced`, which weights a class with n_c of the n training images by
    n / (classes · n_c). Default: all classes weigh the same."""

    @model_validator(mode="after")
    def _check_images(self) -> ImageSettings:
        if self.std is not None and not all(one > 0 and math.isfinite(one) for one in self.std):
            raise ValueError(f"'std' must be positive numbers, got {shown(self.std)}")
        return self
