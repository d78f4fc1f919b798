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
    settings = {}
    for word in words:
        key, found, value = word.partition("=")
        if not found:
            raise InputError(f"'{word}' is not of the form key=value")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as reason:
            raise InputError(f"the value of '{word}' is not YAML") from reason
    return settings
