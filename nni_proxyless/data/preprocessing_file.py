"""The file beside a network's weights that says how images become its input, and what its classes are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import DataError, shown
from ..files import results_folder
from ..files.reading import read_mapping
from ..files.writing import write_json
from .preprocessing import Preprocessing

PREPROCESSING_SCHEMA = "nni-proxyless/preprocessing@1"


def write_preprocessing(folder: Path, preprocessing: Preprocessing, classes: Sequence[str]) -> Path:
    """Write `preprocessing.json` into a folder of results.

    Args:
        folder: Folder of the results of a search or a retraining.
        preprocessing: Preprocessing of the images that the network was trained on.
        classes: Names of the classes, in the order of the network's outputs.
    """
    content = {"schema": PREPROCESSING_SCHEMA, "classes": list(classes), "preprocessing": preprocessing.to_dict()}
    return write_json(folder / results_folder.PREPROCESSING, content)


def read_preprocessing(folder: Path) -> tuple[Preprocessing, tuple[str, ...]] | None:
    """Read `preprocessing.json` of a folder of results.

    Returns:
        The preprocessing and the names of the classes; `None` if there is no such file, as in results of version 0.1.

    Raises:
        DataError: The file cannot be read, or has other content.
    """
    path = folder / results_folder.PREPROCESSING
    if not path.is_file():
        return None
    content = read_mapping(path, "preprocessing", DataError)
    if content.get("schema") != PREPROCESSING_SCHEMA:
        raise DataError(f"{path}: schema must be '{PREPROCESSING_SCHEMA}', got {shown(content.get('schema'))}")
    classes, steps = content.get("classes"), content.get("preprocessing")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise DataError(f"{path}: 'classes' must be a list of names, got {shown(classes)}")
    if not isinstance(steps, dict):
        raise DataError(f"{path}: 'preprocessing' must be a mapping, got {shown(steps)}")
    return Preprocessing.from_dict(steps, str(path)), tuple(classes)
