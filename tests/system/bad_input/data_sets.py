"""Data sets that are missing, damaged or do not fit the space."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from .case import Case, settings
from .folder import arrays, picture

_ARRAYS = "search recipe.yml data=arrays data_dir=bad.npz batch_size=8"
_RNG = np.random.default_rng(0)


def _images(*shape: int) -> np.ndarray:
    return _RNG.integers(0, 256, shape, dtype=np.uint8)


def _npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def _npy(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


_HUGE = (
    b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 8, 8), }".ljust(117)
    + b"\n"
)

_NPZ = [
    Case(_ARRAYS, received, says, {"bad.npz": content})
    for content, received, says in (
        (b"", "bad.npz", ".npz file of numpy"),
        (b"PK\x03\x04", "bad.npz", ".npz file of numpy"),
        (b"PK\x05\x06" + b"\0" * 18, "bad.npz", "has no array 'images'"),
        (arrays()[:-100], "bad.npz", ".npz file of numpy"),
        (arrays()[: len(arrays()) // 2], "bad.npz", ".npz file of numpy"),
        (b"\0" * 1000, "bad.npz", ".npz file of numpy"),
        (_npy(_images(200, 8, 8)), "bad.npz", ".npz file of numpy"),
        (_npz(images=b"not an array", labels=b""), "bad.npz", ".npz file of numpy"),
        (
            _npz(images=_npy(_images(200, 8, 8))[:-50], labels=_npy(np.arange(200) % 10)),
            "(200, 8, 8)",
            "should have 12800 bytes",
        ),
        (_npz(images=_HUGE, labels=_npy(np.arange(200) % 10)), "(1000000000000, 8, 8)", "should have"),
        (_npz(images=_npy(np.array([{"a": 1}], dtype=object)), labels=_npy(np.arange(1))), "bad.npz", "object"),
        (arrays(images=None), "labels", "has no array 'images'"),
        (arrays(labels=None), "images", "has no array 'labels'"),
        (arrays(images=None, x=_images(200, 8, 8)), "x", "has no array 'images'"),
        (arrays(images=_images(200, 64)), "(200, 64)", "must be uint8 of shape"),
        (arrays(images=np.zeros((200, 8, 8), np.float32)), "float32", "must be uint8 of shape"),
        (arrays(images=np.zeros((200, 8, 8), np.int64)), "int64", "must be uint8 of shape"),
        (arrays(images=np.zeros((200, 8, 8), np.complex64)), "complex64", "must hold numbers"),
        (arrays(images=np.full((200, 8, 8), "a")), "<U1", "must hold numbers"),
        (arrays(images=_images(0, 8, 8), labels=np.zeros(0, int)), "0 images", "one for each"),
        (arrays(images=_images(200, 0, 8)), "(200, 0, 8)", "none of them 0"),
        (arrays(images=_images(200, 28, 28)), "(1, 28, 28)", "the space takes (1, 8, 8)"),
        (arrays(images=_images(200, 8, 8, 3)), "(3, 8, 8)", "the space takes (1, 8, 8)"),
        (arrays(images=_images(200, 1, 8, 8)), "(1, 8, 8)", "channels before height and width"),
        (arrays(labels=np.arange(199) % 10), "(199,)", "one for each of the 200 images"),
        (arrays(labels=np.eye(10)[np.arange(200) % 10]), "(200, 10)", "one for each of the 200 images"),
        (arrays(labels=(np.arange(200) % 10).astype(float)), "float64", "whole numbers"),
        (arrays(labels=np.array([str(n % 10) for n in range(200)])), "<U1", "must hold numbers"),
        (arrays(labels=np.arange(200) % 10 - 1), "-1", "must count classes from 0"),
        (arrays(labels=np.arange(200)), "200 images", "cannot be split"),
        (arrays(labels=np.zeros(200, int)), "1 class", "at least 2 are needed"),
        (arrays(labels=(np.arange(200) % 10) * 10**8), "900000000", "an image of each class from 0"),
        (arrays(labels=np.r_[np.zeros(199, int), [1]]), "200 images", "cannot be split"),
        (arrays(images=_images(4, 8, 8), labels=np.array([0, 0, 1, 1])), "4 images", "cannot be split"),
        (arrays(test_images=_images(20, 8, 8)), "test_images", "has no array 'test_labels'"),
        (arrays(test_images=_images(20, 9, 9), test_labels=np.arange(20) % 10), "(1, 9, 9)", "'test_images' must be"),
        (arrays(test_images=_images(20, 8, 8), test_labels=np.arange(20)), "19", "'labels' does not have"),
        (arrays(test_images=_images(20, 8, 8), test_labels=np.arange(19)), "(19,)", "one for each of the 20 images"),
    )
]

_PICTURES = (
    "search recipe.yml space=colour.yml targets='{phone: {table: colour_table.yml}}' data=imagefolder batch_size=4 "
    "data_dir="
)


def _link(target: str) -> object:
    return lambda path: Path(path).symlink_to(target)


_FOLDERS = [
    Case(f"{_PICTURES}bad", received, says, files)
    for files, received, says in (
        ({"bad/.keep": ""}, "bad", "no folder 'train'"),
        ({"bad/cat/1.png": picture()}, "bad", "no folder 'train'"),
        ({"bad/train": "a file"}, "bad", "no folder 'train'"),
        ({"bad/train/.keep": ""}, "bad", "images"),
        ({"bad/train/1.png": picture()}, "bad", "images"),
        ({"bad/train/cat/.keep": ""}, "cat", "images"),
        ({"bad/train/cat/1.txt": "x", "bad/train/dog/1.png": picture()}, "cat/1.txt", "is not an image"),
        ({"bad/train/cat/1.png": "", "bad/train/dog/1.png": picture()}, "cat/1.png", "is empty"),
        (
            {"bad/train/cat/1.png": "x", "bad/train/dog/1.png": picture()},
            "cat/1.png",
            "is not an image that can be read",
        ),
        ({"bad/train/cat/1.png": picture()[:40], "bad/train/dog/1.png": picture()}, "cat/1.png", "damaged"),
        ({"bad/train/cat/1.png": picture(), "bad/train/dog/1.png": picture()}, "2 images", "choose a larger one"),
        ({f"bad/train/cat/{n}.png": picture() for n in range(20)}, "1 class", "at least 2 are needed"),
        (
            {f"bad/train/{kind}/{n}.png": picture() for kind in ("cat", "dog") for n in range(12)}
            | {"bad/val/cat/1.png": picture()},
            "2",
            "the same folders of classes",
        ),
        (
            {f"bad/train/{kind}/{n}.png": picture() for kind in ("cat", "dog") for n in range(12)}
            | {"bad/val/cat/1.png": picture(), "bad/val/cow/1.png": picture()},
            "val",
            "the same folders of classes",
        ),
        ({"bad": _link("bad")}, "bad", "data_dir"),
        ({"bad": _link("/nowhere/at/all")}, "bad", "does not exist"),
    )
]

_NAMED = settings(
    "",
    [
        (f"{_PICTURES}nowhere", "nowhere", "does not exist"),
        (f"{_PICTURES}images.npz", "images.npz", "is not a folder"),
        (f"{_PICTURES}empty", "empty", "no folder 'train'"),
        (f"{_PICTURES}null", "imagefolder", "needs data_dir"),
        (f"{_PICTURES}'~nouser/pictures'", "~nouser", "home"),
        (f"{_PICTURES}'\"\"'", "data_dir", "train"),
        (f"{_PICTURES}pictures".replace("batch_size=4", "batch_size=100"), "100", "choose a smaller one"),
        (f"{_PICTURES}pictures arch_fraction=0.01", "0.01", "arch_fraction"),
        ("search recipe.yml data=imagefolder data_dir=pictures input_channels=2", "imagefolder", "the space takes 2"),
        ("search recipe.yml data=arrays", "arrays", "needs data_dir"),
        ("search recipe.yml data=arrays data_dir=nowhere.npz", "nowhere.npz", "is not a file"),
        ("search recipe.yml data=arrays data_dir=pictures", "pictures", "is not a file"),
        ("search recipe.yml data=arrays data_dir=table.yml", "table.yml", ".npz file of numpy"),
        ("search recipe.yml data=arrays data_dir=found/weights.pt", "weights.pt", "has no array 'images'"),
        (
            "search recipe.yml space=colour.yml data=arrays data_dir=images.npz",
            "(1, 8, 8)",
            "the space takes (3, 8, 8)",
        ),
        ("search recipe.yml data=cifar10", "cifar10", "needs data_dir"),
        ("search recipe.yml data=cifar10 data_dir=nowhere", "nowhere", "does not exist"),
        ("search recipe.yml data=cifar10 data_dir=pictures input_channels=2", "cifar10", "the space takes 2"),
        ("search recipe.yml space=colour.yml data=cifar10 data_dir=pictures", "pictures", "download: true"),
        ("search recipe.yml space=colour.yml data=cifar100 data_dir=empty", "empty", "download: true"),
        ("search recipe.yml space=colour.yml data=cifar100 data_dir=images.npz", "images.npz", "is not a folder"),
        ("retrain architecture.json data=arrays data_dir=nowhere.npz --output out", "nowhere.npz", "is not a file"),
        ("retrain other.json data=arrays data_dir=pictures --output out", "pictures", "is not a file"),
        (
            "retrain proxyless_mobile data=arrays data_dir=images.npz input_size=16 --output out",
            "(1, 8, 8)",
            "(1, 16, 16)",
        ),
        ("search recipe.yml data=torchvision:Fashion data_dir=pictures", "Fashion", "FashionMNIST"),
        ("search recipe.yml data=torchvision:USPS data_dir=pictures", "USPS", "download: true"),
        ("search recipe.yml data=nowhere:images", "nowhere:images", "cannot be loaded"),
        ("search recipe.yml data=json:dumps", "json:dumps", "needs the argument obj"),
        ("search recipe.yml class_weights=[1,2]", "[1.0, 2.0]", "each of the 10 classes"),
        ("search recipe.yml mean=[1,2]", "[1.0, 2.0]", "each of the 1 channels"),
        ("search recipe.yml std=0", "[0.0]", "'std' must be positive"),
        ("retrain architecture.json crop=2 --output out", "got 2", "at most 1"),
        ("retrain architecture.json class_weights=much --output out", "'much'", "must be balanced, a list"),
        ("retrain proxyless_mobile data=cifar10 data_dir=nowhere --output out", "nowhere", "does not exist"),
        ("retrain proxyless_mobile data=imagefolder data_dir=empty --output out", "empty", "train"),
    ],
)

CASES = [*_NPZ, *_FOLDERS, *_NAMED]
