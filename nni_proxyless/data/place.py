"""The data sets by name, and the places of their files. Imports no torch, so that a wrong one is refused at once."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, clipped, unknown_name
from .names import TORCHVISION, names_a_function

DATA_SETS = ("digits", "arrays", "cifar10", "cifar100", "imagefolder")
DIGITS = 10  # classes of the data set that needs no files


def check_place(name: str, input_shape: tuple[int, int, int], data_dir: Path | None, download: bool = False) -> None:
    """Check that there is a data set of this name, that its files are where they should be, and that they can fit.

    Args:
        name: Name of the data set.
        input_shape: Channels, height and width of the network's input.
        data_dir: Folder of the data set's files; for `arrays`, the path of the `.npz` file.
        download: Whether the files may be downloaded.

    Raises:
        DataError: There is no such data set, its files are missing, or it has another number of channels.
    """
    if names_a_function(name):
        return  # only the function knows what it needs
    if name not in DATA_SETS and not name.startswith(TORCHVISION):
        raise DataError(
            unknown_name("data set", name, DATA_SETS) + f", {TORCHVISION}Name such as {TORCHVISION}FashionMNIST, or "
            "package.module:function"
        )
    if name == "digits":
        return
    if name.startswith(TORCHVISION):  # whether there is such a data set, only torchvision knows
        if data_dir is None:
            raise DataError(f"data set {name} needs data_dir, the folder of its files")
        return
    if name == "arrays":
        if data_dir is None:
            raise DataError("data set arrays needs data_dir, the .npz file of its images and labels")
        if not data_dir.is_file():
            raise DataError(
                f"data_dir {_named(data_dir)} is not a file; arrays needs the .npz file of its images and labels"
            )
        return
    _check_folder(data_dir, name, may_be_made=download and name != "imagefolder")
    if input_shape[0] not in (1, 3):
        raise DataError(
            f"data set {name} has 3 channels, or 1 in grey, but the space takes {input_shape[0]}; set input_channels"
        )
    if name == "imagefolder" and data_dir is not None and not (data_dir / "train").is_dir():
        raise DataError(f"data_dir {_named(data_dir)} has no folder 'train' with one folder of images for each class")
    if name == "imagefolder" and data_dir is not None and not any(p.is_dir() for p in (data_dir / "train").iterdir()):
        raise DataError(f"data_dir {_named(data_dir)} holds no images: 'train' has no folder for a class")


def _check_folder(data_dir: Path | None, name: str, may_be_made: bool) -> None:
    if data_dir is None:
        raise DataError(f"data set {name} needs data_dir, the folder of its files")
    if may_be_made:
        return
    if not data_dir.is_dir():
        why = "is not a folder" if data_dir.exists() else "does not exist"
        raise DataError(f"data_dir {_named(data_dir)} {why}; {name} needs the folder of its files")
    if not any(data_dir.iterdir()):
        raise DataError(f"data_dir {_named(data_dir)} is empty; {name} needs the folder of its files")


def _named(path: Path) -> str:
    return clipped(str(path))
