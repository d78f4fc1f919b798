"""Checks of the files of a data set that need neither torch nor reading an image.

A wrong folder is reported at once, and not after PyTorch has been imported.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, unknown_name

DATA_SETS = ("arrays", "cifar10", "cifar100", "digits", "imagefolder")


def check_data_files(name: str, data_dir: Path | None, *, download: bool = False) -> None:
    """Check that there is such a data set, and that its files are where a recipe says.

    Args:
        name: Name of the data set.
        data_dir: Folder of the data set's files; for `arrays`, the path of the `.npz` file.
        download: Whether torchvision may download CIFAR.

    Raises:
        DataError: The name is unknown, or the folder or file is missing, empty or of another layout.
    """
    if name not in DATA_SETS:
        raise DataError(unknown_name("data set", name, DATA_SETS))
    if name == "arrays":
        arrays_file(data_dir)
    elif name == "imagefolder":
        training_folder(data_dir)
    elif name != "digits":
        existing_folder(data_dir, name, may_be_made=download)


def arrays_file(data_dir: Path | None) -> Path:
    """Return the path of the `.npz` file of the data set `arrays`.

    Raises:
        DataError: No path is given, or it is no file.
    """
    if data_dir is None:
        raise DataError("data set arrays needs data_dir, the .npz file of its images and labels")
    if not data_dir.is_file():
        raise DataError(f"data_dir {data_dir} is no file; arrays needs the .npz file of its images and labels")
    return data_dir


def training_folder(data_dir: Path | None) -> Path:
    """Return the folder `train` of the data set `imagefolder`.

    Raises:
        DataError: No folder is given, or it has no folder `train` with folders of classes.
    """
    train = existing_folder(data_dir, "imagefolder") / "train"
    if not train.is_dir():
        raise DataError(f"data_dir {train.parent} has no folder 'train' with one folder of images for each class")
    if not any(path.is_dir() for path in train.iterdir()):
        raise DataError(f"data_dir {train.parent} holds no images: {train} has no folder for a class")
    return train


def existing_folder(data_dir: Path | None, name: str, may_be_made: bool = False) -> Path:
    """Return the folder of a data set.

    Args:
        data_dir: Folder that the recipe names.
        name: Name of the data set, for messages.
        may_be_made: Whether the folder may be missing, because the data set is downloaded into it.

    Raises:
        DataError: No folder is given, it does not exist, or it is empty.
    """
    if data_dir is None:
        raise DataError(f"data set {name} needs data_dir, the folder of its files")
    if may_be_made:
        return data_dir
    if not data_dir.is_dir():
        raise DataError(f"data_dir {data_dir} does not exist; {name} needs the folder of its files")
    if not any(data_dir.iterdir()):
        raise DataError(f"data_dir {data_dir} is empty; {name} needs the folder of its files")
    return data_dir
