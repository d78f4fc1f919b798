"""The steps from an image to the input of a network, compared with torchvision and with pixels computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from nni_proxyless.data.augmentation import Augmentation, ImagePipeline
from nni_proxyless.data.image_settings import ImageSettings
from nni_proxyless.data.preprocessing import Preprocessing, preprocessing_for
from nni_proxyless.data.preprocessing_file import read_preprocessing, write_preprocessing
from nni_proxyless.errors import DataError, InputError

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(height: int, width: int, channels: int = 3) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(values if channels == 3 else values[..., 0])


@pytest.mark.parametrize("size", [32, 64, 65, 224])
@pytest.mark.parametrize(("height", "width"), [(90, 130), (131, 90), (80, 80)])
def test_the_defaults_are_those_of_imagenet_above_64_pixels_and_stretch_below(
    size: int, height: int, width: int
) -> None:
    found = preprocessing_for((3, size, size), *IMAGENET).apply(picture(height, width))
    centre = [v2.Resize(round(size / 0.875), antialias=True), v2.CenterCrop(size)]
    steps = centre if size > 64 else [v2.Resize((size, size), antialias=True)]
    steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)]
    expected = v2.Compose(steps)(picture(height, width))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-6)


def test_inputs_that_are_not_square_are_covered() -> None:
    wide = preprocessing_for((3, 96, 160), *IMAGENET)
    assert (wide.resize, wide.resize_height, wide.resize_width) == ("cover", 110, 183)
    # An image of 200 x 300 is scaled by 0.61 to a width of 183, because 110 / 200 would leave a width of 165.
    assert wide.resized(picture(200, 300)).size == (183, 122)
    assert wide.resized(picture(100, 400)).size == (440, 110)
    assert wide.apply(picture(200, 300)).shape == (3, 96, 160)
    small = preprocessing_for((3, 24, 60), *IMAGENET)
    assert (small.resize, small.resize_height, small.resize_width) == ("stretch", 24, 60)


def test_pixels_by_hand() -> None:
    """Row 0, column 1 of a grey image without resizing: (51 / 255 - 0.5) / 0.25 = -1.2."""
    image = Image.fromarray(np.array([[0, 51, 255], [9, 9, 9]], np.uint8))
    found = preprocessing_for((1, 2, 3), [0.5], [0.25]).apply(image)
    assert found[0, 0] == pytest.approx([-2.0, -1.2, 2.0])
    # The crop leaves rows 1 and 2 and columns 1 and 2 of four, and the half of 0.5 is rounded down to 0.
    crop = preprocessing_for((1, 2, 2), [0.0], [1.0], resize="stretch", crop=0.5)
    levels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert (crop.apply(Image.fromarray(levels)) * 255).round().tolist() == [[[5, 6], [9, 10]]]
    # Nearest neighbours of 4 x 4 at 2 x 2 are the pixels at 1 and 3.
    near = preprocessing_for((1, 2, 2), [0.0], [1.0], interpolation="nearest")
    assert (near.apply(Image.fromarray(levels)) * 255).round().tolist() == [[[5, 7], [13, 15]]]


def test_deep_grey_images_keep_their_levels_in_a_network_for_colours() -> None:
    deep = Image.fromarray(np.full((4, 4), 100.25, np.float32))
    found = preprocessing_for((3, 4, 4), [0.0], [1.0]).apply(deep)
    assert found.shape == (3, 4, 4)
    assert found == pytest.approx(np.full((3, 4, 4), 100.25 / 255))


def test_what_is_recorded_is_read_back(tmp_path: Path) -> None:
    made = preprocessing_for((3, 96, 160), [0.5], [0.2, 0.3, 0.4], resize="stretch", crop=0.9, interpolation="lanczos")
    write_preprocessing(tmp_path, made, ["cat", "dög"])
    assert read_preprocessing(tmp_path) == (made, ("cat", "dög"))
    content = json.loads((tmp_path / "preprocessing.json").read_text())["preprocessing"]
    assert content["mean"] == [0.5, 0.5, 0.5]
    assert content["resize"] == {"rule": "stretch", "height": 107, "width": 178, "interpolation": "lanczos"}
    assert (content["layout"], content["colour"]) == ("NCHW", "RGB")
    assert read_preprocessing(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": None}, "'resize' must be a mapping, got None"),
        ({"resize": {"rule": "fit"}}, "must have a rule and an interpolation"),
        ({"height": 0}, "must be whole numbers from 1"),
        ({"mean": [1.0]}, "'mean' must be a number for each of 3 channels"),
        ({"std": [1.0, 0.0, 1.0]}, "'std' must be a number for each of 3 channels"),
        ({"mean": ["a", "b", "c"]}, "'mean' must be a number"),
    ],
)
def test_a_damaged_record_is_refused(changes: dict[str, Any], message: str) -> None:
    content = {**preprocessing_for((3, 8, 8), *IMAGENET).to_dict(), **changes}
    with pytest.raises(DataError, match=message):
        Preprocessing.from_dict(content, "x.json")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": "a"}, "must be a number or a list with one for each channel, got 'a'"),
        ({"std": [0.0]}, "'std' must be positive numbers, got"),
        ({"crop": 0}, "crop must be a number above 0 and at most 1"),
        ({"resize": "fit"}, "unknown resize 'fit'.*allowed: cover, stretch"),
        ({"class_weights": [1, -1]}, "'class_weights' must be balanced, a list"),
        ({"class_weights": [0, 0]}, "'class_weights' must be balanced, a list"),
        ({"augmentation": "much"}, "unknown augmentation 'much'"),
    ],
)
def test_wrong_settings_are_refused_without_torch(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageSettings.checked(values)


def test_one_mean_for_all_channels_or_one_for_each() -> None:
    with pytest.raises(
        DataError, match=r"'mean' must have one number, or one for each of the 3 channels, got \[0.5, 0"
    ):
        preprocessing_for((3, 8, 8), [0.5, 0.5], [1.0])


@pytest.mark.parametrize("shape", [(1, 20, 32), (3, 70, 110)])
def test_augmented_images_have_the_shape_of_the_input(shape: tuple[int, int, int]) -> None:
    image = picture(90, 90, shape[0])
    for kind in ("standard", "strong"):
        pipeline = ImagePipeline(preprocessing_for(shape, [0.5], [0.25]), Augmentation(kind))  # type: ignore[arg-type]
        first, second = pipeline(image), pipeline(image)
        assert first.shape == shape
        assert first.dtype == torch.float32
        assert not torch.equal(first, second)
        assert bool(torch.isfinite(first).all())
    deep = Image.fromarray(np.full((90, 90), 51.0, np.float32))
    assert ImagePipeline(preprocessing_for(shape, [0.5], [0.25]), Augmentation("strong"))(deep).shape == shape


def test_small_images_are_shifted_by_an_eighth_and_mirrored_only_with_flip() -> None:
    """All 3 x 5 shifts of an image of 8 x 16 pixels occur; its mirror images only with `flip`."""
    image = picture(8, 16, 1)
    plain = preprocessing_for((1, 8, 16), [0.0], [1.0])
    base = np.pad(np.asarray(image, np.float32) / np.float32(255), ((1, 1), (2, 2)))
    shifted = {(y, x): base[y : y + 8, x : x + 16] for y in range(3) for x in range(5)}
    known = {values[:, ::step].tobytes(): (step, *at) for at, values in shifted.items() for step in (1, -1)}
    for flip in (False, True):
        pipeline = ImagePipeline(plain, Augmentation("standard", flip))
        seen = {known[pipeline(image)[0].numpy().tobytes()] for _ in range(300)}
        assert seen == {(step, *at) for at in shifted for step in ((1, -1) if flip else (1,))}
