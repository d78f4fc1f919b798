"""What all recipes share: a frozen dataclass whose fields are the keys of a YAML, loaded, overridden and checked.

It imports neither NNI nor torch, so that a recipe is checked before anything slow begins.
"""

from __future__ import annotations

import os
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import RecipeError, unknown_name
from .files import read_mapping

_S = TypeVar("_S", bound="Settings")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of recipes. Paths are relative to the recipe's folder.

    Attributes:
        folder: Where the recipe lies.
    """

    folder: str = field(default=".", metadata={"internal": True})

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """All keys that a recipe may have."""
        return tuple(f.name for f in fields(cls) if not f.metadata.get("internal"))

    @classmethod
    def load(cls: type[_S], path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> _S:
        """Load a file, apply overrides, check the result.

        Args:
            path: The recipe's YAML.
            overrides: Key to value, from NNI's manager or the command line.

        Raises:
            RecipeError: The file cannot be read, a key is unknown, a type is wrong or a value out of range.
        """
        content = read_mapping(path, "recipe", RecipeError)
        return cls.from_dict({**content, **(overrides or {})}, Path(path).resolve().parent, f"recipe {path}")

    @classmethod
    def from_dict(cls: type[_S], content: Mapping[str, Any], folder: Path | None = None, source: str = "recipe") -> _S:
        """Check keys, types and ranges; see `load`."""
        allowed, hints = cls.keys(), get_type_hints(cls)
        values: dict[str, Any] = {"folder": str(folder or Path.cwd())}
        for key, value in content.items():
            if key not in allowed:
                raise RecipeError(f"{source}: " + unknown_name("key", key, allowed))
            values[key] = _converted(value, hints[key], f"{source}: '{key}'")
        recipe = cls(**values)
        recipe._check(source)
        return recipe

    def _check(self, source: str) -> None:
        """Check ranges and combinations.

        Raises:
            RecipeError: Something is out of range; the message begins with `source`.
        """

    def check_above_0(self, source: str, *keys: str) -> None:
        self._check_range(source, keys, "greater than 0", lambda value: 0 < value < float("inf"))

    def check_from_0(self, source: str, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            if value is not None and not 0 <= value < float("inf"):
                raise RecipeError(f"{source}: '{key}' must not be negative, got {value}")

    def check_from_0_below_1(self, source: str, *keys: str) -> None:
        self._check_range(source, keys, "from 0 to below 1", lambda value: 0 <= value < 1)

    def check_between_0_and_1(self, source: str, *keys: str) -> None:
        self._check_range(source, keys, "between 0 and 1", lambda value: 0 < value < 1)

    def _check_range(self, source: str, keys: tuple[str, ...], allowed: str, holds: Any) -> None:
        for key in keys:
            value = getattr(self, key)
            if value is not None and not holds(value):
                raise RecipeError(f"{source}: '{key}' must be {allowed}, got {value}")

    def resolve(self, path: str) -> Path:
        """A path of the recipe's, seen from its folder."""
        return Path(self.folder) / Path(path).expanduser()

    def to_dict(self, *, absolute: bool = False) -> dict[str, Any]:
        """Key to value, as a recipe file has them.

        Args:
            absolute: Write paths in full, so that the file means the same in another folder.
        """
        return {key: value for key, value in asdict(self).items() if key in self.keys()}


def _converted(value: Any, hint: Any, where: str) -> Any:
    """The value as the hinted type, or a RecipeError that says what is allowed."""
    origin = get_origin(hint)
    if origin is Literal:
        allowed = get_args(hint)
        if value not in allowed:
            raise RecipeError(f"{where}: " + unknown_name("value", value, allowed))
        return value
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        return _converted(value, next(arg for arg in get_args(hint) if arg is not type(None)), where)
    if origin is dict:
        if isinstance(value, Mapping):
            return dict(value)
        raise RecipeError(f"{where} must be a mapping, got {_shown(value)}")
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is float:
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a text
            try:
                return float(value)
            except ValueError:
                pass
        elif is_number:
            return float(value)
        raise RecipeError(f"{where} must be a number, got {_shown(value)}")
    if hint is int:
        if is_number and float(value).is_integer():
            return int(value)
        raise RecipeError(f"{where} must be a whole number, got {_shown(value)}")
    names = {str: "a text", bool: "true or false"}
    if isinstance(value, hint):
        return value
    raise RecipeError(f"{where} must be {names[hint]}, got {_shown(value)}")


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value!r} ({type(value).__name__})"
