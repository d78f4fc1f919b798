"""Base classes of settings that users write. Pydantic checks the settings, and each error message is a single line.

A field contains the type, range, default and description of a setting. The checks with their messages, the JSON schema
for editors and the tables of the documentation are all derived from the fields. This module imports neither NNI nor
torch, so that a recipe is checked before anything slow starts.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from ..errors import InputError, RecipeError, clipped, shown, unknown_name
from ..image_size import allowed_sizes, image_size, written
from ..values import (
    LEAST_NUMBER,
    LEAST_TEMPERATURE,
    LEAST_WIDTH_MULT,
    MOST_CHANNELS,
    MOST_COUNT,
    MOST_EPOCHS,
    MOST_FINALISTS,
    MOST_NUMBER,
    MOST_PIXELS,
    MOST_PROCESSES,
    MOST_SAMPLES,
    MOST_SEED,
    MOST_THREADS,
    MOST_WIDTH_MULT,
)
from .reading import read_mapping, user_path

_C = TypeVar("_C", bound="CheckedSettings")
_S = TypeVar("_S", bound="Settings")
_SHOWN = 3  # largest number of errors in one message
_LONGEST_VALUE = 100  # largest number of characters of a value in a message


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> Any:
    """Convert a string to a number if possible, because YAML 1.1 reads `1e-3` as a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    return value


def _size(value: Any, info: ValidationInfo) -> Any:
    """Check height and width of images. They stay as a file writes them: one number, or a list of two."""
    if value is None:
        return None
    plain = [_whole(one) for one in value] if isinstance(value, (list, tuple)) else _whole(value)
    size = image_size(plain)
    if size is None:
        raise ValueError(f"'{info.field_name}' must be {allowed_sizes(plain)}, got {_shown(value)}")
    return written(size)


_FROM_FLOAT, _FROM_TEXT = BeforeValidator(_whole), BeforeValidator(_number)
# The range stands next to the type, so that it reaches the JSON schema.
Count = Annotated[int, Field(ge=1, le=MOST_COUNT), _FROM_FLOAT]
Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS), _FROM_FLOAT]
WholeFrom0 = Annotated[int, Field(ge=0, le=MOST_COUNT), _FROM_FLOAT]
Samples = Annotated[int, Field(ge=2, le=MOST_SAMPLES), _FROM_FLOAT]
Finalists = Annotated[int, Field(ge=1, le=MOST_FINALISTS), _FROM_FLOAT]
_PIXELS = {"type": "integer", "minimum": 1, "maximum": MOST_PIXELS}
Size = Annotated[
    Any,
    BeforeValidator(_size),
    WithJsonSchema(
        {"anyOf": [_PIXELS, {"type": "array", "items": _PIXELS, "minItems": 2, "maxItems": 2}, {"type": "null"}]}
    ),
]
Channels = Annotated[int, Field(ge=1, le=MOST_CHANNELS), _FROM_FLOAT]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED), _FROM_FLOAT]
Threads = Annotated[int, Field(ge=1, le=MOST_THREADS), _FROM_FLOAT]
Devices = Annotated[int, Field(ge=1, le=MOST_PROCESSES), _FROM_FLOAT]
Nodes = Annotated[int, Field(ge=1, le=MOST_PROCESSES), _FROM_FLOAT]
Workers = Annotated[int, Field(ge=0, le=MOST_PROCESSES), _FROM_FLOAT]
Positive = Annotated[float, Field(ge=LEAST_NUMBER, le=MOST_NUMBER), _FROM_TEXT]
NumberFrom0 = Annotated[float, Field(ge=0, le=MOST_NUMBER), _FROM_TEXT]
PartBelow1 = Annotated[float, Field(ge=0, lt=1), _FROM_TEXT]
ProperPart = Annotated[float, Field(gt=0, lt=1), _FROM_TEXT]
WidthMult = Annotated[float, Field(ge=LEAST_WIDTH_MULT, le=MOST_WIDTH_MULT), _FROM_TEXT]
Temperature = Annotated[float, Field(ge=LEAST_TEMPERATURE, le=1), _FROM_TEXT]
PartUpTo1 = Annotated[float, Field(gt=0, le=1), _FROM_TEXT]


class CheckedSettings(BaseModel):
    """Frozen settings with one-line error messages."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        """Return all keys, those of the class itself before those of its bases."""
        own = [key for key in cls.model_fields if key in cls.__annotations__]
        return (*own, *(key for key in cls.model_fields if key not in own))

    @classmethod
    def checked(cls: type[_C], values: Mapping[str, Any]) -> _C:
        """Create settings from keyword arguments.

        Raises:
            InputError: A name is unknown, a value has the wrong type, or a value is out of range.
        """
        try:
            return cls(**values)
        except ValidationError as reason:
            raise InputError(cls.explain(reason, quoted=False)) from reason

    @classmethod
    def explain(cls, error: ValidationError, *, quoted: bool) -> str:
        """Describe an error in one line, which says what was received and what is allowed.

        Args:
            error: Error of pydantic.
            quoted: Whether keys are quoted, as in messages about a file.
        """
        # A misspelt key comes first, because it may be the reason of other errors.
        errors = sorted(error.errors(include_url=False), key=lambda details: details["type"] != "extra_forbidden")
        found = [cls._explain_one(details, quoted) for details in errors]
        rest = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
        return "; ".join(found[:_SHOWN]) + rest

    @classmethod
    def _explain_one(cls, details: ErrorDetails, quoted: bool) -> str:
        kind, received = details["type"], details["input"]
        if kind == "value_error":
            return str(details["ctx"]["error"])
        key = str(details["loc"][0])
        if kind == "extra_forbidden":
            return unknown_name("key" if quoted else "argument", key, cls.keys())
        annotation = cls.model_fields[key].annotation
        literals = _literals(annotation)
        if literals:
            return unknown_name(key, received, literals)
        name = f"'{key}'" if quoted else key
        allowed = _allowed(annotation, cls.model_fields[key].metadata, received)
        return f"{name} must be {allowed}, got {_shown(received)}"

    def to_dict(self) -> dict[str, Any]:
        """Return all values by key, as in a file."""
        values = self.model_dump()
        return {key: values[key] for key in self.keys()}


class Settings(CheckedSettings):
    """Base of recipes. Relative paths start from the recipe's folder."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Folder that relative paths start from."""
        return self._folder

    @classmethod
    def load(cls: type[_S], path: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None) -> _S:
        """Load a recipe file, apply overrides, and check the result.

        Args:
            path: Path of the recipe's YAML file.
            overrides: Values by key that replace those of the file, from NNI's manager or the command line.

        Raises:
            RecipeError: The file cannot be read, a key is unknown, a value has the wrong type, or a value is out of
                range.
        """
        content = read_mapping(path, "recipe", RecipeError)
        return cls.from_dict({**content, **(overrides or {})}, Path(path).resolve().parent, f"recipe {path}")

    @classmethod
    def from_dict(cls: type[_S], content: Mapping[str, Any], folder: Path | None = None, source: str = "recipe") -> _S:
        """Check keys, types and ranges, and create the settings.

        Args:
            content: Values by key.
            folder: Folder that relative paths start from. Defaults to the current folder.
            source: Name of the source of the settings, for error messages.

        Raises:
            RecipeError: A key is unknown, a value has the wrong type, or a value is out of range.
        """
        try:
            made = cls(**{str(key): value for key, value in content.items()})
        except ValidationError as reason:
            raise RecipeError(f"{source}: {cls.explain(reason, quoted=True)}") from reason
        if folder is not None:
            made._folder = folder
        return made

    def resolve(self, path: str) -> Path:
        """Resolve a path of the recipe, relative to the recipe's folder."""
        return self.folder / user_path(path, "file", RecipeError)

    def to_dict(self, *, absolute: bool = False) -> dict[str, Any]:
        """Return the content of a recipe file.

        Args:
            absolute: Whether paths are made absolute, so that the recipe has the same meaning in another folder.
        """
        return super().to_dict()


def markdown_table(settings: type[CheckedSettings]) -> str:
    """Create a Markdown table of settings, with the columns key, default and meaning."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    keys = settings.keys()
    for key in keys:
        field = settings.model_fields[key]
        default = field.get_default(call_default_factory=True)
        if default is None or default == {}:
            shown = ""
        else:
            shown = f"`{str(default).lower() if isinstance(default, bool) else default}`"
        rows.append(f"| `{key}` | {shown} | {' '.join((field.description or '').split())} |")
    return "\n".join(rows)


def closed_choices(settings: type[CheckedSettings], key: str) -> tuple[str, ...]:
    """Return the values that a key of settings allows, if it allows only some; empty for other keys."""
    if key not in settings.model_fields:
        return ()
    annotation = settings.model_fields[key].annotation
    return ("true", "false") if annotation is bool else _literals(annotation)


def _literals(annotation: Any) -> tuple[str, ...]:
    """Return the allowed values of a `Literal`, which may be optional; empty for other types."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return next((found for part in get_args(annotation) if (found := _literals(part))), ())


def _allowed(annotation: Any, metadata: Iterable[Any], received: Any) -> str:
    """Describe the allowed values of a field by a noun phrase. A largest value is named only to those who exceed it."""
    kind, bounds = _kind_and_bounds(annotation, metadata)
    if kind is int:
        exceeds = isinstance(received, (int, float)) and "le" in bounds and received > bounds["le"]
        most = f" to {bounds['le']}" if exceeds else ""
        return "a whole number" + (f" from {bounds['ge']}{most}" if "ge" in bounds else "")
    if kind is float:
        number = received if isinstance(received, (int, float)) else 0
        if bounds.get("le") == MOST_NUMBER and not MOST_NUMBER < number < math.inf:
            del bounds["le"]
        if bounds.get("ge") == LEAST_NUMBER:
            if 0 < number < LEAST_NUMBER:
                return f"a number from {LEAST_NUMBER:g}, because smaller ones count as 0"
            bounds = {"gt": 0.0, **{name: bound for name, bound in bounds.items() if name != "ge"}}
        ranges = {
            ("gt",): "greater than {gt:g}",
            ("ge",): "of at least {ge:g}",
            ("ge", "lt"): "from {ge:g} to below {lt:g}",
            ("gt", "lt"): "between {gt:g} and {lt:g}",
            ("gt", "le"): "above {gt:g} and at most {le:g}",
            ("ge", "le"): "from {ge:g} to {le:g}",
        }
        text = ranges.get(tuple(bounds))
        return "a number" + (f" {text.format(**bounds)}" if text else "")
    return {str: "a text", bool: "true or false", dict: "a mapping"}.get(kind, "of another type")


def _kind_and_bounds(annotation: Any, metadata: Iterable[Any]) -> tuple[Any, dict[str, Any]]:
    bounds = {
        name: getattr(part, name)
        for name in ("gt", "ge", "lt", "le")
        for part in metadata
        if getattr(part, name, None) is not None
    }
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        spread = [part for one in more for part in (getattr(one, "metadata", None) or [one])]
        kind, deeper = _kind_and_bounds(inner, spread)
        return kind, {**deeper, **bounds}
    options = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) is not dict and options:
        kind, deeper = _kind_and_bounds(options[0], ())
        return kind, {**deeper, **bounds}
    return get_origin(annotation) or annotation, bounds


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{clipped(shown(value), _LONGEST_VALUE)} ({type(value).__name__})"
