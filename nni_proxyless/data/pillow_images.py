"""Reading of image files with Pillow: every mode keeps its whole range, or is refused by its name.

An image file may come from a stranger or be damaged. So only formats that Pillow decodes itself are opened, a file that
would fill the memory is refused before it is decoded, and each fault is one line that names the file.
"""

from __future__ import annotations

import functools
import os
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError, clipped
from ..files.reading import open_regular
from .preprocessing import BACKGROUND

# Formats of pictures. Pillow would give some others to another program, such as EPS to Ghostscript.
_PICTURES = (
    "PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "TGA", "PCX", "SGI", "ICO", "QOI",
    "XBM",
)  # fmt: skip
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
_DIRECT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")
_WHITE_16 = 65535.0
_PHOTOMETRIC, _SAMPLE_FORMAT, _SIGNED = 262, 339, 2  # tags of TIFF, and a value of the second


@functools.cache
def formats() -> tuple[str, ...]:
    """Formats that are read: those of pictures that this Pillow has been built with."""
    Image.init()
    return tuple(name for name in _PICTURES if name in Image.OPEN)


@functools.cache
def suffixes() -> frozenset[str]:
    """Endings of the names of image files, such as `.png`, in lower case."""
    known = (*formats(), "MPO")  # photographs with more than one picture, which Pillow opens as JPEG
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


def read_image(path: str | os.PathLike[str], channels: int) -> Image.Image:
    """Read the first frame of an image file; see `converted`.

    Args:
        path: Path of the file.
        channels: 3 for colours, 1 for grey.

    Raises:
        DataError: The file is missing, empty, damaged, no image, larger than Pillow's limit, or of a mode that cannot
            be converted.
    """
    return _opened(path, lambda image: converted(image, channels))  # type: ignore[no-any-return]


def frames(path: str | os.PathLike[str]) -> int:
    """Return 1 for a file with one picture, and 2 for one with several, such as an animation. Nothing is decoded.

    The second picture of a photograph (format MPO) is a part of it, such as a depth map, so such a file has one.

    Raises:
        DataError: The file is missing, empty, no image, or larger than Pillow's limit.
    """
    return _opened(path, lambda image: 1 if image.format == "MPO" or not getattr(image, "is_animated", False) else 2)  # type: ignore[no-any-return]


def _opened(path: str | os.PathLike[str], use: Any) -> Any:
    named = f"image {clipped(os.fspath(path))}"
    try:
        with open_regular(path, "image", DataError) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of small faults, such as damaged EXIF data
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if os.fstat(file.fileno()).st_size == 0:
                raise DataError(f"{named} is empty: it has 0 bytes; remove it or replace it")
            with Image.open(file, formats=formats()) as image:
                return use(image)
    except DataError as reason:
        raise reason if named in str(reason) else DataError(f"{named} {reason}") from reason
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as reason:
        raise DataError(
            f"{named} has more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}, and is not unpacked; make it "
            "smaller"
        ) from reason
    except UnidentifiedImageError as reason:
        raise DataError(
            f"{named} is not an image that can be read, or it is damaged; remove it or replace it"
        ) from reason
    except Exception as reason:  # damaged images raise errors of many kinds
        detail = clipped(" ".join(str(reason).split())) or type(reason).__name__
        raise DataError(f"{named} is damaged or truncated: {detail}; remove it or replace it") from reason


def converted(image: Image.Image, channels: int) -> Image.Image:
    """Convert an image of any mode to 8 bits or to 32-bit floats with the same range, from 0 (black) to 255 (white).

    The EXIF orientation is applied. Transparent parts show white. Grey levels of more than 8 bits are kept, so 16 bits
    are scaled from 0 to 65535, and floats from 0 to 1.

    Args:
        image: Image that Pillow has opened.
        channels: 3 for colours, 1 for grey.

    Returns:
        Image of mode RGB for three channels, L for one, or F for a deep grey image and any number of channels.

    Raises:
        DataError: The number of channels is another one, the mode is unknown, or its range is.
    """
    if channels not in (1, 3):
        raise DataError(f"can be converted to 1 channel (grey) or 3 (colours), but the space takes {channels}")
    format_, white_is_zero = image.format, _tag(image, _PHOTOMETRIC) == 0  # the turned image has neither
    if image.mode == "L" and _tag(image, _SAMPLE_FORMAT) == _SIGNED:
        raise DataError("has signed numbers of 8 bits, whose black and white are not known; save it unsigned")
    clear = image.info.get("transparency")
    image = ImageOps.exif_transpose(image)
    mode = image.mode
    if mode in _DEEP or (mode == "I" and format_ in ("PNG", "PPM")):
        return _scaled(image, 255 / _WHITE_16, white_is_zero, clear)
    if mode == "I":
        raise DataError("has mode I, whole numbers of 32 bits whose white is not known; save it with 8 or 16 bits")
    if mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:  # also if one is not a number
            raise DataError(
                f"has mode F, floats, which must be from 0 to 1, got {low:g} to {high:g}; save it as 16 bits"
            )
        return _scaled(image, 255.0, white_is_zero)
    target = "L" if channels == 1 else "RGB"  # Pillow weights colours as ITU-R BT.601 does
    if mode in _ALPHA or (mode in _DIRECT and image.has_transparency_data):
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}[mode]) if mode in ("La", "RGBa") else image
        visible = straight.convert("RGBA")
        paper = Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
        return Image.alpha_composite(paper, visible).convert("RGB").convert(target)
    if mode == "LAB":
        return _rgb_of_lab(image).convert(target)
    if mode not in _DIRECT:
        raise DataError(f"has mode {mode}, which cannot be converted; save it as RGB or as grey")
    return image.convert(target) if mode in ("1", "L") else image.convert("RGB").convert(target)


def _scaled(image: Image.Image, factor: float, white_is_zero: bool, clear: object = None) -> Image.Image:
    """Scale deep grey levels to 255, with black as 0. The grey level `clear` is transparent and shows white."""
    levels = np.asarray(image)
    values = levels.astype(np.float32) * np.float32(factor)
    if white_is_zero:  # Pillow inverts such images only if they have 8 bits or fewer
        values = 255 - values
    if isinstance(clear, int):
        values[levels == clear] = BACKGROUND
    return Image.fromarray(values)


def _tag(image: Image.Image, number: int) -> object:
    """Return the first value of a tag of a TIFF file; `None` for other files and without the tag."""
    value = getattr(image, "tag_v2", {}).get(number) if image.format == "TIFF" else None
    return value[0] if isinstance(value, tuple) and value else value


def _rgb_of_lab(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    from_lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    found = ImageCms.applyTransform(image, from_lab)
    assert found is not None
    return found
