"""Parses settings of the form `key=value` on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import InputError, clipped

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
                f"{reason}; a text with special characters needs quotes, as in '{key:.50}=\"a: b\"'"
            ) from reason
    return settings


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
