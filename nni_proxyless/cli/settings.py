"""Parses settings of the form `key=value` on the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..errors import InputError, clipped
from ..files.parsing import parse_yaml

_SYNTAX = re.compile("did not find expected|cannot start any token|not allowed in this context")


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parse words of the form `key=value`; each value is read as YAML. Of several values of a key, the last one counts.

    Raises:
        InputError: A word does not have this form, or its value is not valid YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found or not key:
            raise InputError(f"'{clipped(word)}' is not of the form key=value, such as epochs=20")
        try:
            settings[key] = parse_yaml(value, f"the value of '{clipped(word)}'", InputError)
        except InputError as reason:
            if not _SYNTAX.search(str(reason)):
                raise
            raise InputError(
                f"{reason}; a text with special characters needs quotes, as in '{key:.50}=\"a: b\"'"
            ) from reason
    return settings
