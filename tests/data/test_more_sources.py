"""Data sets of torchvision by name, and data sets that a function of the user's returns."""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from nni_proxyless.data import torchvision_sets
from nni_proxyless.data.image_settings import ImageSettings
from nni_proxyless.data.request import Request
from nni_proxyless.data.sources import native_shape
from nni_proxyless.data.splits import DataSplits, load_splits
from nni_proxyless.errors import DataError

RNG = np.random.default_rng(0)


def images(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.fixture
def fashion(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Files of 40 training and 10 test images in the format of FashionMNIST, and the training images."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    pictures = images(40, 28, 28)
    for part, found in (("train", pictures), ("t10k", images(10, 28, 28))):
        count = len(found)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + found.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
    return tmp_path, pictures


def test_a_data_set_of_torchvision(fashion: tuple[Path, np.ndarray]) -> None:
    folder, pictures = fashion
    splits = load_splits(
        "torchvision:FashionMNIST", (1, 28, 28), data_dir=folder, held_out_fraction=0.25, arch_fraction=0.25
    )
    assert (splits.num_classes, len(splits.held_out), splits.class_names[0]) == (10, 10, "T-shirt/top")
    assert splits.test is not None
    assert len(splits.test) == 10  # type: ignore[arg-type]
    mean, std = pictures.mean() / 255, pictures.std(ddof=1) / 255
    assert splits.preprocessing.mean == pytest.approx([mean], rel=1e-3)
    assert splits.preprocessing.std == pytest.approx([std], rel=1e-3)
    for index, (image, label) in zip(splits.held_out.indices, splits.held_out, strict=True):
        assert int(label) == index % 10
        expected = (pictures[index] / 255 - splits.preprocessing.mean[0]) / splits.preprocessing.std[0]
        assert image[0].numpy() == pytest.approx(expected, abs=1e-5)
    larger = load_splits(
        "torchvision:FashionMNIST", (3, 96, 70), data_dir=folder, held_out_fraction=0.25, arch_fraction=0.25
    )
    assert larger.weights[0][0].shape == larger.held_out[0][0].shape == (3, 96, 70)
    assert native_shape(Request("torchvision:FashionMNIST", (3, 9, 9), folder)) == (1, 28, 28)


def test_faults_of_torchvisions_data_sets(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown torchvision data set 'Fashion'.*CIFAR10, .*FashionMNIST.*:function"):
        load_splits("torchvision:Fashion", (1, 28, 28), data_dir=tmp_path)
    with pytest.raises(DataError, match="torchvision:FashionMNIST needs data_dir"):
        load_splits("torchvision:FashionMNIST", (1, 28, 28))
    (tmp_path / "x").write_text("x")
    with pytest.raises(DataError, match=r"no FashionMNIST in .*set download: true"):
        load_splits("torchvision:FashionMNIST", (1, 28, 28), data_dir=tmp_path)


def test_every_name_is_a_class_of_torchvision_with_these_arguments() -> None:
    import inspect

    from torchvision import datasets

    for name in torchvision_sets.NAMES:
        parameters = inspect.signature(getattr(datasets, name).__init__).parameters
        part = next((key for key in ("train", "split") if key in parameters), None)
        known = (torchvision_sets._BY_TRAIN, torchvision_sets._BY_SPLIT, torchvision_sets._WHOLE)
        assert name in known[("train", "split", None).index(part)]  # type: ignore[arg-type]


def test_the_names_of_parts_differ_among_torchvisions_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A data set with the parts trainval and test, as OxfordIIITPet, is tried with train first."""
    asked = []

    class Pets:
        classes = ["a", "b"]  # noqa: RUF012

        def __init__(self, root: Path, split: str = "trainval", download: bool = False) -> None:
            asked.append((split, download))
            if split not in ("trainval", "test"):
                raise ValueError(f"Unknown value '{split}' for argument split.")

    monkeypatch.setattr("torchvision.datasets.OxfordIIITPet", Pets)
    parts = torchvision_sets.load_torchvision("OxfordIIITPet", tmp_path, True)
    assert parts.classes == ("a", "b")
    assert asked == [("train", True), ("trainval", True), ("test", True)]


Load = Callable[..., DataSplits]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Function that loads what another function returns, as `data: user_module:function`."""

    def run(function: Any, shape: tuple[int, int, int] = (3, 8, 8), **settings: Any) -> DataSplits:
        module = ModuleType("user_module")
        module.function = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "user_module", module)
        return load_splits("user_module:function", shape, settings=ImageSettings(**settings))

    return run


def labels(count: int, classes: int = 3) -> np.ndarray:
    return np.arange(count) % classes


def test_a_function_that_returns_arrays(load: Load) -> None:
    train, held, test = images(30, 8, 8, 3), images(6, 8, 8, 3), images(3, 8, 8, 3)
    splits = load(lambda: ((train, labels(30)), (held, labels(6)), (test, labels(3))), mean=0.5, std=0.5)
    assert len(splits.weights) + len(splits.architecture) == len(splits.training) == 30
    assert len(splits.held_out) == 6
    assert splits.test is not None
    for found, expected in ((splits.held_out[4][0], held[4]), (splits.test[2][0], test[2])):
        assert found.numpy() == pytest.approx(expected.transpose(2, 0, 1) / 127.5 - 1, abs=1e-6)
    assert splits.held_out_labels == (0, 1, 2, 0, 1, 2)
    own = load(lambda: ((train, labels(30)), None, None))
    assert (len(own.held_out), own.test) == (6, None)
    pixels = train / 255
    assert own.preprocessing.mean == pytest.approx(pixels.mean((0, 1, 2)), rel=1e-5)
    assert own.preprocessing.std == pytest.approx(pixels.std((0, 1, 2), ddof=1), rel=1e-4)


def test_arrays_of_another_size_are_resized(load: Load) -> None:
    train = images(30, 16, 16)
    splits = load(lambda: ((train, labels(30)), None, None), (1, 8, 4), mean=0.0, std=1.0)
    index = splits.held_out.indices[0]
    resized = Image.fromarray(train[index]).resize((4, 8), Image.Resampling.BILINEAR)
    assert splits.held_out[0][0].numpy()[0] == pytest.approx(np.asarray(resized) / 255, abs=1e-6)


@pytest.mark.parametrize("size", [40, 72])
def test_arrays_of_the_inputs_size_are_kept_as_they_are_and_recorded_so(load: Load, size: int) -> None:
    train = images(30, size, size)
    splits = load(lambda: ((train, labels(30)), None, None), (1, size, size), mean=0.0, std=1.0)
    steps, index = splits.preprocessing, splits.held_out.indices[0]
    assert (steps.resize, steps.resize_height, steps.resize_width) == ("stretch", size, size)
    assert splits.held_out[0][0].numpy() == pytest.approx(train[index][np.newaxis] / 255, abs=1e-6)
    assert splits.held_out[0][0].numpy() == pytest.approx(steps.apply(Image.fromarray(train[index])))
    cropped = load(lambda: ((train, labels(30)), None, None), (1, size, size), mean=0.0, std=1.0, resize="cover")
    assert cropped.preprocessing.resize_height == round(size / 0.875)
    expected = cropped.preprocessing.apply(Image.fromarray(train[index]))
    assert cropped.held_out[0][0].numpy() == pytest.approx(expected, abs=1e-6)
    four = images(30, size, size, 4)
    assert load(lambda: ((four, labels(30)), None, None), (4, size, size)).held_out[0][0].shape == (4, size, size)
    with pytest.raises(DataError, match="have 4 channels, and only images with 1 or 3 can be resized"):
        load(lambda: ((four, labels(30)), None, None), (4, size, size + 1))


class Pictures:
    """Data set of Pillow images without attributes, as users write it."""

    def __init__(self, count: int, mode: str = "RGB", size: int = 8, classes: int = 3) -> None:
        self.images = [Image.new(mode, (size, size), i if mode != "RGB" else (i, 0, 255)) for i in range(count)]
        self.classes = classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.images[index], index % self.classes


@pytest.mark.parametrize("size", [8, 72])
def test_a_function_that_returns_data_sets_of_pictures(load: Load, size: int) -> None:
    def function(input_shape: tuple[int, int, int]) -> dict[str, Any]:
        assert input_shape == (3, size, size)
        return {"train": Pictures(30), "held_out": Pictures(6), "test": Pictures(3), "classes": ["a", "b", "c"]}

    splits = load(function, (3, size, size), mean=0.0, std=1.0, augmentation="none")
    assert (splits.class_names, splits.num_classes, splits.preprocessing.known) == (("a", "b", "c"), 3, True)
    image, label = splits.held_out[5]
    assert int(label) == 2
    assert image.amax((1, 2)).tolist() == image.amin((1, 2)).tolist() == pytest.approx([5 / 255, 0, 1])
    deep = load(lambda: (Pictures(30, "I;16"), None, None), (1, size, size), mean=0.0, std=1.0)
    assert float(deep.held_out[0][0].max()) == pytest.approx(deep.held_out.indices[0] / 65535)


def test_tensors_are_taken_as_they_are_and_recorded_as_unknown(load: Load) -> None:
    values = torch.randn(30, 3, 8, 8)
    splits = load(lambda: (TensorDataset(values, torch.tensor(labels(30))), None, None))
    assert torch.equal(splits.held_out[0][0], values[splits.held_out.indices[0]])
    assert (splits.preprocessing.known, splits.preprocessing.resize) == (False, "none")
    arrays = load(lambda: ((values.numpy(), labels(30)), None, None))
    assert torch.equal(arrays.held_out[0][0], values[arrays.held_out.indices[0]])
    assert arrays.preprocessing == splits.preprocessing
    whole = load(lambda: ([(values[i].mul(0).byte(), i % 3) for i in range(30)], None, None), mean=0.5, std=0.5)
    assert float(whole.held_out[0][0].max()) == -1


class Failing(Pictures):
    """Data set with an item that cannot be read."""

    def __getitem__(self, index: int) -> Any:
        if index == 7:
            raise OSError("no image 7")
        return super().__getitem__(index)


class Named(Pictures):
    """Data set whose attribute of classes has names, or numbers that items contradict."""

    def __init__(self, count: int, targets: Any) -> None:
        super().__init__(count)
        self.targets = targets


@pytest.mark.parametrize("targets", [["cat", "dog", "emu"] * 10, [i % 3 if i in (0, 29) else 0 for i in range(30)], 5])
def test_an_attribute_that_items_contradict_is_no_list_of_classes(load: Load, targets: Any) -> None:
    splits = load(lambda: (Named(30, targets), None, None))
    assert sorted(splits.training_labels + splits.held_out_labels) == [0] * 10 + [1] * 10 + [2] * 10


def test_unusual_arrays_give_warnings(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    load(lambda: ((images(30, 8, 8, 3).transpose(0, 3, 1, 2).astype(np.float32), labels(30)), None, None))
    assert "train has floats up to" in caplog.text
    load(lambda: {"train": (images(30, 8, 8, 3), labels(30)), "classes": ["a", "b", "c", "d"]})
    assert "no training image of class d, which the network cannot learn" in caplog.text


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: None, "must return three data sets.*got NoneType"),
        (lambda: (1, 2), "must return three data sets.*got 2 values: int, int"),
        (lambda: {"train": 1, "tset": 2}, "unknown part 'tset'; did you mean 'test'"),
        (lambda: ([], None, None), "has no images"),
        (lambda: (Pictures(30, classes=1), None, None), "the 30 images have 1 class, and at least 2 are needed"),
        (lambda: (Pictures(30), Pictures(9, classes=5), None), "held_out has class 4, but there are only 3 classes"),
        (lambda: ((i for i in ()), None, None), "has no length"),
        (lambda: ([("picture", i % 3) for i in range(30)], None, None), "image 0 is str; it must be a Pillow image"),
        (lambda: ([(Image.new("L", (8, 8)), "cat")] * 30, None, None), "class of item 0 must be a whole number"),
        (lambda: ([(Image.new("L", (8, 8)), -1)] * 30, None, None), "class of item 0 must be a whole number from 0"),
        (lambda: ([torch.zeros(3)] * 30, None, None), "item 0 must be a pair of image and class, got Tensor"),
        (lambda: ([(torch.zeros(1, 4, 4), 0)] * 30, None, None), r"shape \(1, 4, 4\), but the space takes \(3, 8, 8\)"),
        (lambda: ([(Image.new("I", (8, 8)), 0)] * 30, None, None), "image 0 has mode I, whole numbers of 32 bits"),
        (lambda: ((images(30, 8, 8), labels(30)), None, None), r"set input_channels: 1 and input_size: \[8, 8\]"),
        (lambda: ((images(30, 8, 8, 3), labels(29)), None, None), "one for each of the 30 images"),
        (lambda: ((images(30, 8, 8, 3), labels(30)), Pictures(9), None), "arrays for each part, or data sets for each"),
        (lambda needed: None, "needs the argument needed, but a recipe has only input_shape, data_dir, download"),
        (lambda: 1 / 0, "failed with ZeroDivisionError: division by zero"),
        (lambda: (Failing(30), None, None), "item 7 failed with OSError: no image 7"),
        (lambda: ((np.full((30, 3, 8, 8), np.nan, np.float32), labels(30)), None, None), "infinite or not a number"),
        (
            lambda: ([(torch.full((3, 8, 8), math.inf), i % 3) for i in range(30)], None, None),
            "infinite or not a number",
        ),
        (
            lambda: {"train": (images(30, 8, 8, 3), labels(30)), "classes": ["a", "b", "a"]},
            "'classes' has the name a more than once",
        ),
        (
            lambda: ((images(30, 8, 8, 3), labels(30) + 1), None, None),
            "no training image of class 0, but some of class 3",
        ),
        (3, "is not a function, but of type int"),
    ],
)
def test_faults_of_functions(load: Load, function: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(function)
    assert "\n" not in str(caught.value)


def test_the_module_may_stand_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_pictures.py").write_text(
        "import numpy as np\n"
        "def load(input_shape, data_dir, download, shade=7):\n"
        "    assert str(data_dir) == 'somewhere' and not download\n"
        "    return (np.full((30, *input_shape[1:]), shade, np.uint8), np.arange(30) % 3), None, None\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    settings = ImageSettings(mean=0.0, std=1.0)
    splits = load_splits("my_pictures:load", (1, 8, 8), data_dir=Path("somewhere"), settings=settings, folder=tmp_path)
    assert float(splits.held_out[0][0].max()) == pytest.approx(7 / 255)
    monkeypatch.delitem(sys.modules, "my_pictures")


def test_functions_that_do_not_exist() -> None:
    with pytest.raises(DataError, match="data no_such_module:f cannot be loaded: No module named"):
        load_splits("no_such_module:f", (3, 8, 8))
    with pytest.raises(DataError, match="data json:no_such cannot be loaded: module 'json' has no attribute"):
        load_splits("json:no_such", (3, 8, 8))
    with pytest.raises(DataError, match=r"unknown data set 'folder'.*torchvision:Name.*package\.module:function"):
        load_splits("folder", (3, 8, 8))


def test_arrays_of_a_file_are_resized_only_if_the_recipe_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=images(30, 6, 9), labels=labels(30))
    with pytest.raises(DataError, match=r"\(1, 6, 9\).*set input_channels: 1 and input_size: \[6, 9\], or resize"):
        load_splits("arrays", (1, 8, 8), data_dir=tmp_path / "a.npz")
    fitting = load_splits("arrays", (1, 6, 9), data_dir=tmp_path / "a.npz")
    assert fitting.weights[0][0].shape == (1, 6, 9)
    assert (fitting.preprocessing.resize_height, fitting.preprocessing.resize_width) == (6, 9)
    resized = load_splits("arrays", (1, 8, 8), data_dir=tmp_path / "a.npz", settings=ImageSettings(resize="cover"))
    assert resized.held_out[0][0].shape == (1, 8, 8)
    assert native_shape(Request("arrays", (3, 1, 1), tmp_path / "a.npz")) == (1, 6, 9)


def test_digits_may_be_augmented() -> None:
    splits = load_splits("digits", (1, 8, 8), settings=ImageSettings(augmentation="standard", flip=False))
    assert len({splits.weights[0][0].numpy().tobytes() for _ in range(50)}) > 5  # of 9 shifts
    assert torch.equal(splits.statistics[0][0], splits.statistics[0][0])
    plain = load_splits("digits", (1, 8, 8))
    assert torch.equal(plain.weights[0][0], splits.statistics[0][0])
