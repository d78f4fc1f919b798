"""Folders of images: which files and classes count, and faults that name the file."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from nni_proxyless.data import image_folder
from nni_proxyless.data.image_folder import list_folder
from nni_proxyless.data.image_settings import ImageSettings
from nni_proxyless.data.splits import load_splits
from nni_proxyless.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey images of 16 bits, whose level is 40 times the class, in 8 bits: 0, 40 and 80."""
    for part, count in (("train", 12), ("val", 2)):
        for number, name in enumerate(("ape", "bee", "cat")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = np.full((9, 11), 40 * number * 257, np.uint16)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_files_and_order_are_those_of_torchvision(folder: Path) -> None:
    (folder / "train" / "ape" / "more").mkdir()
    shutil.copy(folder / "train" / "ape" / "0.png", folder / "train" / "ape" / "more" / "z.JPG")
    theirs = ImageFolder(str(folder / "train"))
    found = list_folder(folder / "train")
    assert list(zip(found.paths, found.labels, strict=True)) == theirs.samples
    assert list(found.classes) == theirs.classes == ["ape", "bee", "cat"]


def test_hidden_folders_and_files_of_file_managers_are_skipped(folder: Path) -> None:
    before = list_folder(folder / "train")
    for name in (".ipynb_checkpoints", "__MACOSX", ".git"):
        (folder / "train" / name).mkdir()
        (folder / "train" / "bee" / name).mkdir()
        shutil.copy(folder / "train" / "ape" / "0.png", folder / "train" / name / "0.png")
        shutil.copy(folder / "train" / "ape" / "0.png", folder / "train" / "bee" / name / "0.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (folder / "train" / "bee" / name).write_text("x")
    (folder / "train" / "labels.csv").write_text("x")
    assert list_folder(folder / "train") == before


@pytest.mark.parametrize(("channels", "values"), [(1, 0.449), (3, None)])
def test_grey_images_of_16_bits_reach_the_network(folder: Path, channels: int, values: float | None) -> None:
    settings = ImageSettings(mean=values or [0.485, 0.456, 0.406], std=1.0)
    splits = load_splits("imagefolder", (channels, 6, 8), data_dir=folder, settings=settings)
    assert splits.class_names == ("ape", "bee", "cat")
    assert splits.preprocessing.input_shape == (channels, 6, 8)
    mean = np.reshape(splits.preprocessing.mean, (-1, 1, 1))
    assert splits.test is not None
    for dataset in (splits.held_out, splits.test):
        image, label = dataset[len(dataset) - 1]  # type: ignore[arg-type]
        expected = np.broadcast_to(40 * label / 255 - mean, (channels, 6, 8))
        torch.testing.assert_close(image, torch.tensor(expected, dtype=torch.float32))


def test_classes_that_differ_are_listed(folder: Path) -> None:
    (folder / "val" / "ape").rename(folder / "val" / "dog")
    with pytest.raises(
        DataError, match=r"same folders of classes, but have 3 and 3: only .*train has ape; only .*val has dog"
    ):
        load_splits("imagefolder", (3, 8, 8), data_dir=folder)


@pytest.mark.parametrize("name", ["notes.txt", "photo.heic", "movie.mp4", "page.pdf", "noending"])
def test_files_that_are_no_images_are_named(folder: Path, name: str) -> None:
    (folder / "train" / "bee" / name).write_text("x")
    with pytest.raises(DataError, match=f"bee/{name} is not an image: its name ends with none of .jpg, .png"):
        load_splits("imagefolder", (3, 8, 8), data_dir=folder)


def test_empty_classes_and_loose_images_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(folder / "train" / "ape" / "0.png", folder / "train" / "loose.png")
    list_folder(folder / "train")
    assert "1 images in" in caplog.text
    assert "belong to no class and are not used, such as loose.png" in caplog.text
    (folder / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images in its folder empty"):
        list_folder(folder / "train")


def test_broken_images_are_found_before_the_training(folder: Path) -> None:
    for name in ("3.png", "7.png"):
        (folder / "train" / "bee" / name).write_bytes((folder / "train" / "bee" / name).read_bytes()[:45])
    with pytest.raises(DataError, match=r"bee/3\.png is .*\(1 other images cannot be read either\)"):
        load_splits("imagefolder", (3, 8, 8), data_dir=folder)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_of_a_large_data_set_is_named_when_it_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The error of a data loader's process is one line as well, without its traceback."""
    monkeypatch.setattr(image_folder, "_DECODED_BYTES", 0)
    splits = load_splits("imagefolder", (3, 8, 8), data_dir=folder)
    path = splits.held_out.dataset.content.paths[splits.held_out.indices[0]]  # type: ignore[attr-defined]
    Path(path).write_bytes(b"\x89PNG")
    with pytest.raises(DataError) as caught:
        list(DataLoader(splits.held_out, batch_size=4, num_workers=workers))
    assert (
        str(caught.value) == f"image {path} is not an image that can be read, or it is damaged; remove it or replace it"
    )


def test_animations_give_their_first_frame_and_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (255, 0)]
    frames[0].save(folder / "train" / "cat" / "0.gif", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "train" / "cat" / "pages.tif", save_all=True, append_images=frames[1:])
    caplog.set_level(logging.WARNING)
    splits = load_splits("imagefolder", (1, 8, 8), data_dir=folder, settings=ImageSettings(mean=0.0, std=1.0))
    assert "2 image files have several frames, such as" in caplog.text
    source = splits.held_out.dataset
    animated = [i for i, path in enumerate(source.content.paths) if path.endswith((".gif", ".tif"))]  # type: ignore[attr-defined]
    assert len(animated) == 2
    assert all(bool((source[i][0] == 1).all()) for i in animated)


def test_links_to_folders_above_add_no_images(folder: Path) -> None:
    before = list_folder(folder / "train")
    (folder / "train" / "ape" / "above").symlink_to("..")
    (folder / "train" / "ape" / "itself").symlink_to(".")
    assert list_folder(folder / "train") == before


def test_a_folder_test_is_the_test_part_without_val(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(folder / "val", folder / "test")
    assert load_splits("imagefolder", (3, 6, 8), data_dir=folder).test is not None
    assert f"{folder / 'test'} is not used: the test images are those in val" in caplog.text
    (folder / "val").rename(folder / "other")
    caplog.clear()
    test = load_splits("imagefolder", (3, 6, 8), data_dir=folder).test
    assert test is not None
    assert len(test) == 6  # type: ignore[arg-type]
    assert "not used" not in caplog.text


def test_copies_of_training_images_give_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (folder / "val").rglob("*.png"):
        Image.fromarray(np.random.default_rng(len(path.name)).integers(0, 255, (9, 11), np.uint8)).save(path)
    load_splits("imagefolder", (3, 6, 8), data_dir=folder)
    assert "copies" not in caplog.text
    shutil.copy(folder / "train" / "bee" / "3.png", folder / "val" / "bee" / "0.png")
    load_splits("imagefolder", (3, 6, 8), data_dir=folder)
    assert f"1 of the 6 images in {folder / 'val'} are copies of training images, such as" in caplog.text


def test_classes_with_too_few_images_are_named(folder: Path) -> None:
    for path in sorted((folder / "train" / "bee").glob("*.png"))[1:]:
        path.unlink()
    with pytest.raises(
        DataError, match=r"25 images cannot be split into three parts: .* too few: bee \(1\); add images"
    ):
        load_splits("imagefolder", (3, 6, 8), data_dir=folder)
