"""How an image becomes the input of a network. Training, validation, export and model cards read the same record.

`Preprocessing` holds the whole rule as plain numbers, so that it can be written into a file beside the weights, and
repeated elsewhere with Pillow and NumPy alone. This module imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, shown
from ..values import MOST_PIXELS, is_number, is_whole

ResizeRule = Literal["stretch", "cover", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
LAYOUT = "NCHW"
SMALL = 64  # pixels of the longer side, up to which an image is stretched as a whole instead of being cropped
CENTRE = 0.875  # part of a larger image's height and width that remains after the crop
BACKGROUND = 255  # grey level, from 0 to 255, on which transparent images are laid: white
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to the input of a network, in the order in which they are applied.

    1. The image is turned as its EXIF orientation says, laid on white if it is transparent, and converted to RGB
       (`channels` 3) or grey (`channels` 1), with values from 0 to 255 (`pillow_images.py`).
    2. It is resized. `stretch` gives it exactly `resize_height` x `resize_width` pixels. `cover` keeps its proportions
       and gives it the smallest size that covers `resize_height` x `resize_width`. `none` leaves it as it is.
    3. Its central `height` x `width` pixels are cut out.
    4. Its values are divided by 255, `mean` is subtracted, and the result is divided by `std`, for each channel.

    Attributes:
        channels: Channels of the input; 3 are red, green and blue, 1 is grey.
        height: Height of the input in pixels.
        width: Width of the input in pixels.
        resize: Rule of step 2: `stretch`, `cover` or `none`.
        resize_height: Height for step 2, in pixels, at least `height`.
        resize_width: Width for step 2, in pixels, at least `width`.
        interpolation: Pillow's filter of step 2: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        mean: Mean of each channel, for values between 0 and 1.
        std: Standard deviation of each channel, for values between 0 and 1.
        known: Whether these are all steps. A user's function that returns tensors has steps of its own before them.
    """

    channels: int
    height: int
    width: int
    resize: ResizeRule
    resize_height: int
    resize_width: int
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    known: bool = True

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return (self.channels, self.height, self.width)

    @property
    def colour(self) -> str:
        """Order of the channels: `RGB`, `L` for grey, or `unknown` for another number of channels."""
        return {1: "L", 3: "RGB"}.get(self.channels, "unknown")

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a file: numbers, texts and lists only."""
        return {
            "layout": LAYOUT,
            "colour": self.colour,
            "channels": self.channels,
            "height": self.height,
            "width": self.width,
            "resize": {
                "rule": self.resize,
                "height": self.resize_height,
                "width": self.resize_width,
                "interpolation": self.interpolation,
            },
            "background": BACKGROUND,
            "mean": list(self.mean),
            "std": list(self.std),
            "known": self.known,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "preprocessing") -> Preprocessing:
        """Create a preprocessing from the output of `to_dict`.

        Args:
            content: Content of the file.
            source: Name of the file in error messages.

        Raises:
            DataError: A value is missing, has the wrong type or is out of range.
        """
        resize = content.get("resize")
        if not isinstance(resize, Mapping):
            raise DataError(f"{source}: 'resize' must be a mapping, got {shown(resize)}")
        rule, interpolation = resize.get("rule"), resize.get("interpolation")
        if rule not in ("stretch", "cover", "none") or interpolation not in _RESAMPLING:
            raise DataError(f"{source}: 'resize' must have a rule and an interpolation, got {shown(resize)}")
        sizes = [content.get(key) for key in ("channels", "height", "width")]
        sizes += [resize.get(key) for key in ("height", "width")]
        # An image of MOST_PIXELS is resized to more before a crop.
        if not all(is_whole(size, 1, 100 * MOST_PIXELS) for size in sizes):
            raise DataError(f"{source}: channels, heights and widths must be whole numbers from 1, got {shown(sizes)}")
        channels, height, width, resize_height, resize_width = (int(size or 0) for size in sizes)
        mean, std = content.get("mean"), content.get("std")
        for name, values in (("mean", mean), ("std", std)):
            good = isinstance(values, Sequence) and len(values) == channels and all(is_number(one) for one in values)
            if not good or (name == "std" and not all(one > 0 for one in values)):  # type: ignore[union-attr]
                raise DataError(f"{source}: '{name}' must be a number for each of {channels} channels, {shown(values)}")
        return cls(
            channels, height, width, rule, resize_height, resize_width, interpolation,
            tuple(map(float, mean or ())), tuple(map(float, std or ())), content.get("known") is not False,
        )  # fmt: skip

    def resized(self, image: Image.Image) -> Image.Image:
        """Apply step 2 to an image of mode RGB, L or F."""
        width, height = image.size
        if self.resize == "none":
            return image
        new_height, new_width = self.resize_height, self.resize_width
        if self.resize == "cover" and height * new_width <= width * new_height:  # the height decides
            new_width = int(new_height * width / height)
        elif self.resize == "cover":
            new_height = int(new_width * height / width)
        if (new_width, new_height) == image.size:
            return image
        return image.resize((new_width, new_height), _RESAMPLING[self.interpolation])

    def cropped(self, image: Image.Image) -> Image.Image:
        """Apply step 3 to an image.

        Raises:
            DataError: The image is smaller than the input.
        """
        width, height = image.size
        top, left = round((height - self.height) / 2), round((width - self.width) / 2)
        if top < 0 or left < 0:
            raise DataError(f"an image of {height} x {width} pixels is smaller than the input, {self.input_shape}")
        if (height, width) == (self.height, self.width):
            return image
        return image.crop((left, top, left + self.width, top + self.height))

    def scaled(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the values of an image of mode RGB, L or F between 0 and 1, shape (channels, height, width)."""
        values = np.asarray(image, np.float32) / np.float32(255)
        values = values.transpose(2, 0, 1) if values.ndim == 3 else values[np.newaxis]
        if len(values) != self.channels:  # deep grey images stay grey until here, because Pillow has no deep colours
            values = np.repeat(values, self.channels, axis=0)
        return np.ascontiguousarray(values)

    def normalised(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Apply the second part of step 4 to values between 0 and 1, shape (channels, height, width)."""
        mean, std = (np.array(part, np.float32).reshape(-1, 1, 1) for part in (self.mean, self.std))
        return (values - mean) / std

    def apply(self, image: Image.Image) -> NDArray[np.float32]:
        """Apply steps 2 to 4 to an image of mode RGB, L or F; returns shape (channels, height, width)."""
        return self.normalised(self.scaled(self.cropped(self.resized(image))))


def preprocessing_for(
    input_shape: tuple[int, int, int],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    resize: ResizeRule | None = None,
    crop: float | None = None,
    interpolation: Interpolation = "bilinear",
    known: bool = True,
) -> Preprocessing:
    """Make a preprocessing, with the package's defaults for what is not given.

    Args:
        input_shape: Channels, height and width of the network's input.
        mean: Mean of each channel, or a single one for all, for values between 0 and 1.
        std: Standard deviation of each channel, or a single one for all, for values between 0 and 1.
        resize: Rule for resizing. Default: `stretch` for inputs of at most `SMALL` pixels on the longer side, else
            `cover`.
        crop: Part of the resized image's height and width that remains. Default: `CENTRE` with `cover`, else 1.
        interpolation: Pillow's filter.
        known: Whether these are all steps.

    Raises:
        DataError: There is neither one mean (or standard deviation) nor one for each channel.
    """
    channels, height, width = input_shape
    rule = resize or ("cover" if max(height, width) > SMALL else "stretch")
    part = crop if crop is not None else (CENTRE if rule == "cover" else 1.0)
    values = []
    for name, given in (("mean", mean), ("std", std)):
        if len(given) not in (1, channels):
            raise DataError(
                f"'{name}' must have one number, or one for each of the {channels} channels, got {shown(list(given))}"
            )
        if not all(math.isfinite(one) for one in given):
            raise DataError(f"'{name}' must be finite numbers, got {shown(list(given))}")
        values.append(tuple(float(one) for one in given) * (channels if len(given) == 1 else 1))
    return Preprocessing(
        channels, height, width, rule, round(height / part), round(width / part), interpolation,
        values[0], values[1], known,
    )  # fmt: skip
