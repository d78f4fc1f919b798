"""Data sets that a function of the user returns: `data: package.module:function`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import DataError, clipped, unknown_name

_PARTS = ("train", "held_out", "test")


@dataclass(frozen=True)
class UserParts:
    """What a user's function has returned.

    Attributes:
        train: Training images: a data set of pairs of an image and its class, or a pair of two arrays.
        held_out: Images to validate on, in either form; `None` if they are split from the training images.
        test: Test images, in either form; `None` if there are none.
        classes: Names of the classes; `None` if the function does not name them.
    """

    train: Any
    held_out: Any
    test: Any
    classes: tuple[str, ...] | None


def call_function(name: str, arguments: Mapping[str, Any], folder: Path | None) -> UserParts:
    """Import a function and call it.

    Args:
        name: Its name, `package.module:function`.
        arguments: Arguments by name. The function gets those that it has parameters for.
        folder: Folder of the recipe. The module is looked for among the installed ones, there, and in the working
            folder.

    Raises:
        DataError: There is no such function, it fails, or it returns something else than data sets.
    """
    module, _, function = name.partition(":")
    # At the end, so that a file of the user's does not hide an installed module.
    sys.path.extend(str(place) for place in (folder, Path.cwd()) if place is not None and str(place) not in sys.path)
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as reason:
        raise DataError(f"data {name} cannot be loaded: {reason}") from reason
    if not callable(found):
        raise DataError(f"data {name} is not a function, but of type {type(found).__name__}")
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError) as reason:
        raise DataError(f"data {name} has no signature: {reason}") from reason
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    given = {k: v for k, v in arguments.items() if takes_all or k in {parameter.name for parameter in parameters}}
    lacking = [
        one.name
        for one in parameters
        if one.default is one.empty
        and one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)
        and one.name not in given
    ]
    if lacking:
        raise DataError(
            f"data {name} needs the argument {lacking[0]}, but a recipe has only {', '.join(arguments)}; "
            "give it a default"
        )
    try:
        returned = found(**given)
    except DataError:
        raise
    except Exception as reason:
        detail = clipped(" ".join(str(reason).split()))
        raise DataError(f"data {name} failed with {type(reason).__name__}: {detail}") from reason
    return _parts(name, returned)


def _parts(name: str, returned: Any) -> UserParts:
    classes = None
    if isinstance(returned, Mapping):
        for key in returned:
            if key not in (*_PARTS, "classes"):
                raise DataError(f"data {name}: " + unknown_name("part", key, (*_PARTS, "classes")))
        classes = returned.get("classes")
        returned = [returned.get(part) for part in _PARTS]
    if not isinstance(returned, (tuple, list)) or len(returned) != 3 or returned[0] is None:
        raise DataError(
            f"data {name} must return three data sets, for training, held-out and test images, or a mapping with "
            f"{', '.join(_PARTS)}, got {clipped(_described(returned))}"
        )
    if classes is not None:
        if (
            isinstance(classes, str)
            or not isinstance(classes, Sequence)
            or not all(isinstance(c, str) for c in classes)
        ):
            raise DataError(f"data {name}: 'classes' must be a list of names, got {clipped(str(classes))}")
        twice = sorted({one for one in classes if list(classes).count(one) > 1})
        if twice:
            raise DataError(f"data {name}: 'classes' has the name {clipped(twice[0])} more than once")
        classes = tuple(classes)
    train, held_out, test = returned
    return UserParts(train, held_out, test, classes)


def _described(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"{len(value)} values: {', '.join(type(one).__name__ for one in value)}"
    return type(value).__name__


def as_arrays(part: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Return a part as two arrays, of images and of classes; `None` if it is a data set."""
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        return None
    images, labels = (value.numpy() if isinstance(value, torch.Tensor) else value for value in part)
    return (images, np.asarray(labels)) if isinstance(images, np.ndarray) else None
