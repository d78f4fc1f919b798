"""Parses settings of the form `key=value` on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ..errors import InputError


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Parse words of the form `key=value`; each value is read as YAML.

    Raises:
        InputError: A word does not have this form, or its value is not valid YAML.
    """
    settings: dict[str, Any] = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found or not key:
            raise InputError(f"'{word}' is not of the form key=value, such as epochs=20")
        if key in settings:
            raise InputError(f"'{key}' is given twice; give it once")
        try:
            settings[key] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, TypeError, RecursionError) as reason:
            raise InputError(f"the value of '{word}' is not YAML; put quotes around a text with special characters") from reason
    return settings
