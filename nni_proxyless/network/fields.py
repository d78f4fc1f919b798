"""Typed access to the content of a file, with error messages that locate the wrong value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InputError, unknown_name


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
            if key not in allowed:
                raise self.error(f"{self.source}: " + unknown_name("key", key, allowed))

    def part(self, key: str, *allowed: str, optional: bool = False) -> Fields:
        value = self.content.get(key, {} if optional else None)
        if not isinstance(value, Mapping):
            raise self.error(f"{self.source}: '{key}' must be a mapping with {', '.join(allowed)}, got {value!r}")
        part = Fields(value, f"{self.source}: {key}", self.error)
        part.only(*allowed)
        return part

    def whole(self, key: str, allowed: tuple[int, ...] | None = None) -> int:
        value = self.content.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise self.error(f"{self.source}: '{key}' must be a whole number from 1, got {value!r}")
        if allowed is not None and value not in allowed:
            raise self.error(f"{self.source}: '{key}' must be one of {list(allowed)}, got {value}")
        return value

    def wholes(self, key: str) -> tuple[int, ...]:
        value = self.content.get(key)
        good = isinstance(value, list) and value and len(set(map(str, value))) == len(value)
        if not good or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value or ()):
            raise self.error(f"{self.source}: '{key}' must be a list of different whole numbers, got {value!r}")
        return tuple(value or ())

    def positive(self, key: str, default: float) -> float:
        value = self.content.get(key, default)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < float("inf"):
            raise self.error(f"{self.source}: '{key}' must be a positive number, got {value!r}")
        return float(value)
