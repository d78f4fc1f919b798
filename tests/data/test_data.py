from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from nni_proxyless.data.splits import load_splits, split_indices
from nni_proxyless.errors import DataError

PARTS = ("weights", "architecture", "held_out")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parts_never_overlap_and_cover_everything(seed: int) -> None:
    splits = load_splits("digits", (1, 16, 16), seed=seed)
    parts = [set(getattr(splits, part).indices) for part in PARTS]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 1797
    assert list(splits.statistics.indices) == list(splits.weights.indices)


def test_no_image_of_one_part_equals_one_of_another() -> None:
    splits = load_splits("digits", (1, 8, 8))
    images = {part: {x.numpy().tobytes() for x, _ in getattr(splits, part)} for part in PARTS}
    assert not images["weights"] & images["held_out"]
    assert not images["architecture"] & images["held_out"]
    assert not images["weights"] & images["architecture"]


def test_split_is_seeded_and_stratified() -> None:
    labels = [0] * 100 + [1] * 50 + [2] * 10
    first = split_indices(labels, 0.2, 0.3, seed=5)
    assert first == split_indices(labels, 0.2, 0.3, seed=5)
    assert first != split_indices(labels, 0.2, 0.3, seed=6)
    assert [len(part) for part in first] == [80, 32, 48]
    for part, fraction in zip(first, (0.5, 0.2, 0.3), strict=True):
        counts = Counter(labels[i] for i in part)
        assert {c: counts[c] for c in range(3)} == {0: 100 * fraction, 1: 50 * fraction, 2: 10 * fraction}


def test_digits_have_the_shape_of_the_space() -> None:
    splits = load_splits("digits", (3, 24, 24))
    image, label = splits.held_out[0]
    assert image.shape == (3, 24, 24)
    assert image.dtype == torch.float32
    assert 0 <= int(label) < 10
    everything = torch.stack([x for part in PARTS for x, _ in getattr(splits, part)])
    assert float(everything.mean()) == pytest.approx(0.0, abs=1e-3)
    assert float(everything.std()) == pytest.approx(1.0, abs=1e-2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "train" / name / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("size", [32, 96])
def test_imagefolder(folder: Path, size: int) -> None:
    splits = load_splits("imagefolder", (3, size, size), data_dir=folder)
    assert splits.num_classes == 2
    assert splits.weights[0][0].shape == splits.held_out[0][0].shape == (3, size, size)
    assert torch.equal(splits.held_out[0][0], splits.held_out[0][0])
    assert not torch.equal(splits.weights[0][0], splits.weights[0][0])  # augmented
    assert torch.equal(splits.statistics[0][0], splits.statistics[0][0])


def test_real_cifar_images_as_imagefolder(shared_data: Path, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(shared_data / "cifar10" / "train.tar.xz") as archive:
        members = [m for m in archive if m.name.rsplit("/", 1)[-1] < "00040.jpg" or m.isdir()]
        archive.extractall(tmp_path, members, filter="data")
    splits = load_splits("imagefolder", (3, 32, 32), data_dir=tmp_path)
    assert splits.num_classes == 10
    assert splits.weights[0][0].shape == (3, 32, 32)


def write_arrays(path: Path, **changes: Any) -> Path:
    """Write a file with 60 random training images and 6 random test images of 3 classes."""
    generator = np.random.default_rng(0)
    arrays = {
        "images": generator.integers(0, 256, (60, 8, 8, 3), dtype=np.uint8),
        "labels": np.arange(60) % 3,
        "test_images": generator.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8),
        "test_labels": np.arange(6) % 3,
    }
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})
    return path


def test_arrays(tmp_path: Path) -> None:
    path = write_arrays(tmp_path / "images.npz")
    splits = load_splits("arrays", (3, 8, 8), data_dir=path)
    assert splits.num_classes == 3
    assert splits.test is not None
    assert len(splits.test) == 6  # type: ignore[arg-type]
    with np.load(path) as file:
        pixels, labels = file["images"] / 255, file["labels"]
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2), ddof=1)
    for index, (image, label) in zip(splits.held_out.indices, splits.held_out, strict=True):
        expected = ((pixels[index] - mean) / std).transpose(2, 0, 1)
        assert image.numpy() == pytest.approx(expected, abs=1e-5)
        assert int(label) == labels[index]
    batched, labels_of_batch = next(iter(DataLoader(splits.held_out, batch_size=5)))
    assert torch.equal(batched, torch.stack([splits.held_out[i][0] for i in range(5)]))
    assert labels_of_batch.tolist() == [int(splits.held_out[i][1]) for i in range(5)]


def test_arrays_are_shifted_and_flipped(tmp_path: Path) -> None:
    """Compare augmented images with the 3 x 3 possible shifts of the image and of its mirror image."""
    splits = load_splits("arrays", (3, 8, 8), data_dir=write_arrays(tmp_path / "images.npz"))
    plain, augmented = splits.statistics[7][0], [splits.weights[7][0] for _ in range(200)]
    dataset = splits.weights.dataset
    black = ((0 - dataset._mean) / dataset._std).expand(3, 10, 10)  # type: ignore[attr-defined]
    allowed = []
    for image in (plain, plain.flip(2)):
        padded = black.clone()
        padded[:, 1:9, 1:9] = image
        allowed += [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    seen = {next(i for i, one in enumerate(allowed) if torch.allclose(one, image)) for image in augmented}
    assert seen == set(range(18))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "has no array 'labels'; it has images, test_images, test_labels"),
        ({"images": np.zeros((60, 8, 8, 3))}, "must be uint8 .* got float64"),
        ({"images": np.full((60, 8, 8, 3), 0.5)}, r"from 0.5 to 0.5: \(255 \* images\).round\(\).astype\('uint8'\)"),
        (
            {"images": np.zeros((60, 3, 8, 8), np.uint8), "test_labels": None, "test_images": None},
            r"channels before height and width; .*transpose\(0, 2, 3, 1\)",
        ),
        (
            {"labels": np.arange(60) % 3 + 1, "test_labels": None, "test_images": None},
            "no training image of class 0, but",
        ),
        ({"labels": np.arange(60) % 3 * 2}, "no training image of class 1, 3, but some of class 4"),
        ({"labels": np.zeros(59, dtype=int)}, "one for each of the 60 images"),
        ({"labels": np.full(60, -1)}, "must count classes from 0, got -1"),
        ({"test_images": np.zeros((6, 4, 4, 3), dtype=np.uint8)}, "'test_images' must be of the shape of 'images'"),
        ({"test_labels": np.full(6, 3)}, "has class 3, which 'labels' does not have"),
        ({"images": np.zeros((60, 9, 9, 3), np.uint8), "test_images": None}, r"are of shape \(3, 9, 9\)"),
    ],
)
def test_faults_of_arrays(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_splits("arrays", (3, 8, 8), data_dir=write_arrays(tmp_path / "images.npz", **changes))


def test_arrays_need_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="arrays needs data_dir"):
        load_splits("arrays", (3, 8, 8))
    with pytest.raises(DataError, match="is not a file"):
        load_splits("arrays", (3, 8, 8), data_dir=tmp_path)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        load_splits("arrays", (3, 8, 8), data_dir=tmp_path / "text.npz")


def test_faults_of_the_data_folder(tmp_path: Path, folder: Path) -> None:
    shape = (3, 32, 32)
    with pytest.raises(DataError, match=r"unknown data set 'digit'; did you mean 'digits'\?.*cifar100, cifar10|digits"):
        load_splits("digit", shape)
    with pytest.raises(DataError, match="imagefolder needs data_dir"):
        load_splits("imagefolder", shape)
    with pytest.raises(DataError, match="does not exist"):
        load_splits("imagefolder", shape, data_dir=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is empty"):
        load_splits("cifar10", shape, data_dir=tmp_path / "empty")
    with pytest.raises(DataError, match="no folder 'train'"):
        load_splits("imagefolder", shape, data_dir=folder / "train")
    (tmp_path / "hollow" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no images"):
        load_splits("imagefolder", shape, data_dir=tmp_path / "hollow")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "file").write_text("x")
    with pytest.raises(DataError, match="no cifar100 in"):
        load_splits("cifar100", shape, data_dir=tmp_path / "wrong")
    with pytest.raises(DataError, match="has 3 channels, or 1 in grey, but the space takes 2"):
        load_splits("imagefolder", (2, 32, 32), data_dir=folder)
    with pytest.raises(DataError, match="cannot be split"):
        split_indices([0, 1, 2], 0.2, 0.2, 0)
    with pytest.raises(DataError, match="leave images for weight training"):
        split_indices([0] * 10, 0.5, 0.5, 0)


def test_cifar_of_torchvisions_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Load a small data set in torchvision's file format. Torchvision's checksums only fit the full data set."""
    import pickle

    from torchvision.datasets import CIFAR10

    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    generator = np.random.default_rng(0)
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        content = {
            "data": generator.integers(0, 256, (20, 3072), dtype=np.uint8),
            "labels": [n % 10 for n in range(20)],
        }
        (base / name).write_bytes(pickle.dumps(content))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(n) for n in range(10)]}))
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    splits = load_splits("cifar10", (3, 32, 32), data_dir=tmp_path)
    assert [len(getattr(splits, part)) for part in PARTS] == [60, 20, 20]
    assert splits.weights[0][0].shape == (3, 32, 32)
    assert load_splits("cifar10", (3, 40, 40), data_dir=tmp_path).held_out[0][0].shape == (3, 40, 40)
