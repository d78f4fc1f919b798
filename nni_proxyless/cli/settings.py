"""Parses settings of the form `key=value` on the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, clipped

_PATHS = ("data_dir", "inherit", "teacher", "space")
_SYNTAX = re.compile("did not find expected|cannot start any token|not allowed in this context")


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parse words of the form `key=value`; each value is read as YAML. Of several values of a key, the last one counts.

    Raises:
        InputError: A word does not have this form, or its value is not valid YAML.
    """
    from ..files.parsing import parse_yaml

    settings: dict[str, Any] = {}
    for number, word in enumerate(words):
        key, found, value = word.partition("=")
        if not found or not key:
            meant = _meant(words[number : number + 3])
            hint = f"; did you mean '{meant}'?" if meant else ", such as epochs=20"
            raise InputError(f"'{clipped(word)}' is not of the form key=value{hint}")
        try:
            settings[key] = parse_yaml(value, f"the value of '{clipped(word)}'", InputError)
        except InputError as reason:
            if not _SYNTAX.search(str(reason)):
                raise
            raise InputError(
                f"{reason}; a string with special characters needs quotes, as in '{key:.50}=\"a: b\"'"
            ) from reason
    return settings


def with_paths_from_here(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings of the command line whose relative paths may start from the working directory.

    Relative paths of a recipe start from its folder. What is typed, or completed by a shell, starts from the working
    directory. So a path that exists there, and not in the recipe's folder, is made absolute.

    Args:
        settings: Settings.
        folder: The recipe's folder.
    """

    def from_here(key: str, value: Any) -> Any:
        if key not in _PATHS or not isinstance(value, str) or not value or "\0" in value:
            return value
        if key == "space" and not value.endswith((".yml", ".yaml")):
            return value  # the name of an included space
        return str(Path(value).resolve()) if os.path.exists(value) and not os.path.exists(folder / value) else value

    return {key: from_here(key, value) for key, value in settings.items()}


def _meant(words: Sequence[str]) -> str | None:
    """Return the setting that `epochs 3`, `epochs = 3` or `epochs: 3` is meant to be."""
    key, *rest = words
    value = "".join(rest if rest[:1] == ["="] else rest[:1]).lstrip("=")
    key, colon, attached = key.partition(":")
    if colon and attached:
        value = attached
    if not key.rstrip(":").isidentifier() or not value or "=" in value:
        return None
    return f"{clipped(key, 50)}={clipped(value, 50)}"
