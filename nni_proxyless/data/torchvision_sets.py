"""Torchvision's data sets for image classification, by name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError, clipped, unknown_name

# Values of the argument `split` of the training and of the test part, in the order in which they are tried.
_TRAIN, _TEST = ("train", "trainval"), ("test", "val", "valid")
# Mirror images of these are other classes, or none.
_DIRECTED = ("MNIST", "QMNIST", "KMNIST", "EMNIST", "USPS", "SVHN", "GTSRB", "FakeData")
_BY_TRAIN = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "USPS", "CIFAR10", "CIFAR100")
_BY_SPLIT = (
    "SVHN", "STL10", "GTSRB", "Flowers102", "FGVCAircraft", "Food101", "OxfordIIITPet", "PCAM", "DTD", "StanfordCars",
    "Country211", "RenderedSST2", "Imagenette",
)  # fmt: skip
_WHOLE = ("EuroSAT",)
NAMES = tuple(sorted((*_BY_TRAIN, *_BY_SPLIT, *_WHOLE)))


@dataclass(frozen=True)
class TorchvisionParts:
    """A data set of torchvision.

    Attributes:
        train: Training part: pairs of a Pillow image and its class.
        test: Test part in the same form; `None` if there is none.
        classes: Names of the classes; `None` if torchvision does not know them.
        directed: Whether mirror images are other classes, as with digits.
    """

    train: Any
    test: Any
    classes: tuple[str, ...] | None
    directed: bool


def check_torchvision_name(name: str) -> None:
    """Check that torchvision has a data set for image classification of this name.

    Raises:
        DataError: It has none. The message lists all.
    """
    if name not in NAMES:
        raise DataError(
            unknown_name("torchvision data set", name, NAMES) + "; for another one write a function, "
            "data: package.module:function"
        )


def load_torchvision(name: str, folder: Path, download: bool, called: str | None = None) -> TorchvisionParts:
    """Load a data set of torchvision from a folder.

    Args:
        name: Name of torchvision's class, such as `FashionMNIST`.
        folder: Folder of torchvision's files, the argument `root` of its class.
        download: Whether torchvision may download the files.
        called: Name of the data set in error messages; `name` by default.

    Raises:
        DataError: There is no such data set, or its files are missing or damaged.
    """
    from torchvision import datasets

    check_torchvision_name(name)
    kind = getattr(datasets, name)
    allowed = inspect.signature(kind.__init__).parameters
    settings = {"download": download} if "download" in allowed else {}
    try:
        if name in _BY_TRAIN:
            train, test = (kind(folder, train=part, **settings) for part in (True, False))
        elif name in _BY_SPLIT:
            train, test = (_first_split(kind, folder, splits, settings) for splits in (_TRAIN, _TEST))
        else:
            train, test = kind(folder, **settings), None
    except DataError:
        raise
    except Exception as reason:  # missing and damaged files, no network, no SciPy
        detail = clipped(" ".join(str(reason).split())) or type(reason).__name__
        raise DataError(
            f"no {called or name} in {folder}: {detail}. Put torchvision's files there or set download: true"
        ) from reason
    classes = getattr(train, "classes", None)
    names = tuple(classes) if classes is not None and all(isinstance(one, str) for one in classes) else None
    return TorchvisionParts(train, test, names, name in _DIRECTED)


def _first_split(kind: Any, folder: Path, splits: tuple[str, ...], settings: dict[str, Any]) -> Any:
    for number, split in enumerate(splits, start=1):
        try:
            return kind(folder, split=split, **settings)
        except ValueError as reason:  # torchvision's answer to an unknown split
            if "split" not in str(reason) or number == len(splits):
                raise
    raise AssertionError("unreachable")
