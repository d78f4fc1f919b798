"""Typed access to the content of a file, with error messages that locate the wrong value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import InputError, shown, unknown_name
from ..values import MOST_WHOLE, is_number, is_whole


class Fields:
    """Typed access to a mapping, with error messages that locate the wrong value.

    Args:
        content: Content of the file, or of a part of it.
        source: Name of the file or part in error messages.
        error: Class of the errors that the methods raise.
    """

    def __init__(self, content: Mapping[str, Any], source: str, error: type[InputError]) -> None:
        self.content = content
        self.source = source
        self.error = error

    def only(self, *allowed: str) -> None:
        for key in self.content:
            if not isinstance(key, str) or key not in allowed:
                raise self.error(f"{self.source}: " + unknown_name("key", key, allowed))

    def part(self, key: str, *allowed: str, optional: bool = False) -> Fields:
        value = self.content.get(key, {} if optional else None)
        if not isinstance(value, Mapping):
            raise self.error(f"{self.source}: '{key}' must be a mapping with {', '.join(allowed)}, got {shown(value)}")
        part = Fields(value, f"{self.source}: {key}", self.error)
        part.only(*allowed)
        return part

    def whole(self, key: str, allowed: tuple[int, ...] | None = None, most: int = MOST_WHOLE) -> int:
        value = self.content.get(key)
        if not is_whole(value, 1):
            raise self.error(f"{self.source}: '{key}' must be a whole number from 1, got {shown(value)}")
        if value > most:
            raise self.error(f"{self.source}: '{key}' must be a whole number from 1 to {most}, got {value}")
        if allowed is not None and value not in allowed:
            raise self.error(f"{self.source}: '{key}' must be one of {list(allowed)}, got {value}")
        return value

    def wholes(self, key: str, most: int = MOST_WHOLE) -> tuple[int, ...]:
        value = self.content.get(key)
        whole = isinstance(value, list) and len(value) > 0 and all(is_whole(n, 1) for n in value)
        if not isinstance(value, list) or not whole or len(set(value)) < len(value):
            raise self.error(f"{self.source}: '{key}' must be a list of different whole numbers, got {shown(value)}")
        if max(value) > most:
            raise self.error(f"{self.source}: '{key}' must be whole numbers up to {most}, got {shown(value)}")
        return tuple(value)

    def positive(self, key: str, default: float, most: float = math.inf) -> float:
        value = self.content.get(key, default)
        if not is_number(value, 0) or value == 0:
            raise self.error(f"{self.source}: '{key}' must be a positive number, got {shown(value)}")
        if value > most:
            raise self.error(f"{self.source}: '{key}' must be a positive number up to {most:g}, got {value}")
        return float(value)
