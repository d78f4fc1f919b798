"""Finds the file of a space by its name or path. This module does not import torch."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SpaceError, unknown_name
from ..files.reading import user_path
from ..files.resources import shipped_folder


def shipped_spaces() -> dict[str, Path]:
    """Mapping from the name of each space in `search_spaces/` to its file."""
    return {path.stem: path for path in sorted(shipped_folder("search_spaces").glob("*.yml"))}


def space_file(name_or_path: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """Return the file of a shipped space, or of any space by the path of its file.

    Args:
        name_or_path: Name such as `mobilenetv2_imagenet`, or path such as `my_space.yml`.
        folder: Folder that a relative path is relative to. The default is the working folder.

    Raises:
        SpaceError: There is no space of this name. The message lists the shipped ones.
    """
    text = os.fspath(name_or_path)
    shipped = shipped_spaces()
    if text in shipped:
        return shipped[text]
    if Path(text).suffix in {".yml", ".yaml"} or os.sep in text:
        return (folder or Path()) / user_path(text, "space", SpaceError)
    raise SpaceError(unknown_name("space", text, shipped) + ", or the path of a .yml file")
