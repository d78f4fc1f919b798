"""Image files of every mode of Pillow, with pixels computed by hand, and files that are no images."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from nni_proxyless.data.pillow_images import converted, read_image, suffixes
from nni_proxyless.errors import DataError


def pixels(path: Path, channels: int) -> list[list[float]]:
    """Return the pixels of the first row of a file, each as a list of its channels."""
    row = np.asarray(read_image(path, channels), np.float64)[0]
    return row.reshape(len(row), -1).tolist()


def mode_of(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def made(mode: str, *values: object) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    for x, value in enumerate(values):
        image.putpixel((x, 0), value)  # type: ignore[arg-type]
    return image


def grey(red: int, green: int, blue: int) -> int:
    """Grey level of a colour by ITU-R BT.601, as Pillow rounds it."""
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


@pytest.mark.parametrize(
    ("mode", "name", "values", "colours"),
    [
        ("1", "a.png", (0, 255), [[0, 0, 0], [255, 255, 255]]),
        ("L", "a.png", (0, 100, 255), [[0] * 3, [100] * 3, [255] * 3]),
        # Transparent parts show white: 255 - alpha + value * alpha / 255.
        ("LA", "a.png", ((10, 255), (10, 0), (0, 51)), [[10] * 3, [255] * 3, [204] * 3]),
        ("RGB", "a.png", ((1, 2, 3), (255, 0, 0)), [[1, 2, 3], [255, 0, 0]]),
        ("RGBA", "a.png", ((1, 2, 3, 255), (1, 2, 3, 0), (0, 255, 0, 51)), [[1, 2, 3], [255] * 3, [204, 255, 204]]),
        # Subtractive colours: 255 - cyan, and so on, times 255 - black.
        ("CMYK", "a.tif", ((0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)), [[255] * 3, [0, 255, 255], [0] * 3]),
    ],
)
def test_modes_of_8_bits(
    tmp_path: Path, mode: str, name: str, values: tuple[object, ...], colours: list[list[int]]
) -> None:
    made(mode, *values).save(tmp_path / name)
    assert mode_of(tmp_path / name) == mode
    assert pixels(tmp_path / name, 3) == colours
    assert pixels(tmp_path / name, 1) == [[grey(*colour)] for colour in colours]


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    image = made("P", 0, 1, 2)
    image.putpalette([255, 0, 0, 0, 0, 255, 9, 9, 9])
    image.save(tmp_path / "plain.png")
    assert pixels(tmp_path / "plain.png", 3) == [[255, 0, 0], [0, 0, 255], [9, 9, 9]]
    image.save(tmp_path / "clear.gif", transparency=1)
    assert pixels(tmp_path / "clear.gif", 3) == [[255, 0, 0], [255, 255, 255], [9, 9, 9]]
    image.save(tmp_path / "half.png", transparency=bytes([255, 51, 0]))
    assert pixels(tmp_path / "half.png", 3) == [[255, 0, 0], [204, 204, 255], [255, 255, 255]]
    colour = made("RGB", (5, 6, 7), (8, 8, 8))
    colour.save(tmp_path / "key.png", transparency=(5, 6, 7))  # one colour of an RGB image is transparent
    assert pixels(tmp_path / "key.png", 3) == [[255, 255, 255], [8, 8, 8]]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "big.tif", "a.pgm"])
def test_16_bits_keep_their_range_and_all_levels(tmp_path: Path, name: str, channels: int) -> None:
    """In Pillow's own conversion to 8 bits, everything above 255 is white."""
    levels = np.array([[0, 255, 257, 30_000, 65_535]], np.uint16)
    mode = "I;16B" if name == "big.tif" else "I;16"
    Image.frombytes(mode, (5, 1), levels.astype(">u2" if mode == "I;16B" else "<u2").tobytes()).save(tmp_path / name)
    assert mode_of(tmp_path / name) == ("I" if name == "a.pgm" else mode)
    image = read_image(tmp_path / name, channels)
    assert image.mode == "F"
    assert np.asarray(image)[0] == pytest.approx(levels[0] / 257, rel=1e-6)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_16_bits_in_either_order_of_bytes(mode: str) -> None:
    big = mode == "I;16B"
    image = Image.frombytes(mode, (2, 1), np.array([514, 65_535], ">u2" if big else "<u2").tobytes())
    assert np.asarray(converted(image, 1)).tolist() == [[2.0, 255.0]]


def test_floats_from_0_to_1_are_scaled_and_others_are_refused(tmp_path: Path) -> None:
    made("F", 0.0, 0.25, 1.0).save(tmp_path / "a.tif")
    assert pixels(tmp_path / "a.tif", 1) == [[0.0], [63.75], [255.0]]
    for values, text in (((0.0, 255.0), "0 to 255"), ((-1.0, 0.5), "-1 to 0.5"), ((math.nan, 0.5), "nan")):
        made("F", *values).save(tmp_path / "a.tif")
        with pytest.raises(DataError, match=rf"a\.tif has mode F, floats, which must be from 0 to 1, got .*{text}"):
            read_image(tmp_path / "a.tif", 3)


def test_whole_numbers_of_32_bits_are_refused_by_name(tmp_path: Path) -> None:
    made("I", 0, 70_000).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif has mode I, whole numbers of 32 bits whose white is not known"):
        read_image(tmp_path / "a.tif", 1)


def test_premultiplied_and_padded_modes() -> None:
    assert np.asarray(converted(made("RGBX", (1, 2, 3, 9)), 3)).tolist() == [[[1, 2, 3]]]
    assert np.asarray(converted(made("RGBa", (0, 51, 0, 51)), 3)).tolist() == [[[204, 255, 204]]]
    assert np.asarray(converted(made("La", (0, 51)), 1)).tolist() == [[204]]
    palette = Image.new("PA", (1, 1))
    palette.putpalette([7, 8, 9])
    palette.putpixel((0, 0), (0, 255))
    assert np.asarray(converted(palette, 3)).tolist() == [[[7, 8, 9]]]


def test_colour_spaces() -> None:
    assert np.asarray(converted(made("YCbCr", (0, 128, 128), (255, 128, 128)), 3)).tolist() == [[[0] * 3, [255] * 3]]
    assert np.asarray(converted(made("HSV", (0, 255, 255), (0, 0, 128)), 3)).tolist() == [[[255, 0, 0], [128] * 3]]
    rgb = made("RGB", (255, 255, 255), (0, 0, 0), (200, 30, 60), (20, 90, 160))
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(rgb, to_lab)
    assert lab is not None
    assert lab.mode == "LAB"
    assert lab.getpixel((0, 0))[0] == 255  # type: ignore[index]  # white has the full lightness
    difference = np.asarray(converted(lab, 3), int) - np.asarray(rgb, int)
    assert np.abs(difference).max() <= 3  # the lightness and the two colours are rounded to 8 bits


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, [[1, 2], [3, 4], [5, 6]]),
        (2, [[2, 1], [4, 3], [6, 5]]),
        (3, [[6, 5], [4, 3], [2, 1]]),
        (4, [[5, 6], [3, 4], [1, 2]]),
        (5, [[1, 3, 5], [2, 4, 6]]),
        (6, [[5, 3, 1], [6, 4, 2]]),
        (7, [[6, 4, 2], [5, 3, 1]]),
        (8, [[2, 4, 6], [1, 3, 5]]),
    ],
)
def test_the_exif_orientation_is_honoured(tmp_path: Path, orientation: int, expected: list[list[int]]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.array([[1, 2], [3, 4], [5, 6]], np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert np.asarray(read_image(tmp_path / "a.png", 1)).tolist() == expected


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: b"", "is empty: it has 0 bytes"),
        (lambda: b"hello", "is not an image that can be read, or it is damaged"),
        (lambda: b"\x89PNG\r\n\x1a\n", "image .*a.img"),
        (lambda: encoded("PNG")[:1000], "is damaged or truncated"),
        (lambda: encoded("JPEG")[:1000], "is damaged or truncated: image file is truncated"),
        (lambda: encoded("GIF")[:1000], "is damaged or truncated"),
        (lambda: encoded("WEBP")[:200], "image .*a.img"),
        (lambda: encoded("TIFF")[:1000], "image .*a.img"),
        (lambda: encoded("BMP")[:1000], "is damaged or truncated"),
        (lambda: encoded("PNG").replace(b"IDAT", b"IDAX"), "image .*a.img"),
        (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image"),  # which Pillow would execute
    ],
)
def test_broken_files_are_refused_in_one_line_with_their_name(
    tmp_path: Path, content: Callable[[], bytes], message: str
) -> None:
    (tmp_path / "a.img").write_bytes(content())
    with pytest.raises(DataError, match=message) as caught:
        read_image(tmp_path / "a.img", 3)
    line = str(caught.value)
    assert str(tmp_path / "a.img") in line
    assert "\n" not in line
    assert len(line) < 500


def test_images_above_pillows_limit_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (40, 40)).save(tmp_path / "a.png")
    for limit in (1000, 100):  # 1.6 times the limit is a warning of Pillow, 16 times an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match=rf"a\.png has more pixels than Pillow's limit of {limit}"):
            read_image(tmp_path / "a.png", 1)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1600)
    assert read_image(tmp_path / "a.png", 1).size == (40, 40)


def test_usual_names_of_files() -> None:
    assert {".png", ".jpg", ".jpeg", ".gif", ".webp", ".tif", ".bmp", ".pgm", ".mpo"} <= suffixes()
    assert not {".eps", ".txt", ".wmf", ".pdf"} & suffixes()


def write_tiff(path: Path, values: np.ndarray, white_is_zero: bool, sample_format: int = 1) -> None:
    """Write a TIFF file with one row of grey levels."""
    data, bits = values.tobytes(), 8 * values.itemsize
    tags = [
        (256, 3, len(values)), (257, 3, 1), (258, 3, bits), (259, 3, 1), (262, 3, 0 if white_is_zero else 1),
        (273, 4, 8), (277, 3, 1), (278, 3, 1), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\0" + struct.pack("<I", 8 + len(data))
    path.write_bytes(head + data + struct.pack("<H", len(tags)) + entries + bytes(4))


@pytest.mark.parametrize(
    "values",
    [np.array([0, 51, 255], np.uint8), np.array([0, 13107, 65535], np.uint16), np.array([0, 0.2, 1], np.float32)],
)
def test_white_may_be_zero_in_tiff_files(tmp_path: Path, values: np.ndarray) -> None:
    """Pillow itself inverts such images of 8 bits, but not of 16."""
    sample_format = 3 if values.dtype.kind == "f" else 1
    for white_is_zero, levels in ((False, [0, 51, 255]), (True, [255, 204, 0])):
        write_tiff(tmp_path / "a.tif", values, white_is_zero, sample_format)
        assert np.ravel(pixels(tmp_path / "a.tif", 1)) == pytest.approx(levels)


def test_signed_numbers_are_refused_by_name(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", np.array([0, -5, 100], np.int8), False, 2)
    with pytest.raises(DataError, match=r"a\.tif has signed numbers of 8 bits"):
        read_image(tmp_path / "a.tif", 1)


def test_a_transparent_level_of_16_bits_shows_white(tmp_path: Path) -> None:
    levels = Image.fromarray(np.array([[0, 25_700]], np.uint16))
    levels.save(tmp_path / "a.png", transparency=0)
    assert pixels(tmp_path / "a.png", 1) == [[255], [100]]
