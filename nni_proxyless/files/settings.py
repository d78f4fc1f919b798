"""Base classes of settings that users write. Pydantic checks the settings, and each error message is a single line.

A field contains the type, range, default and description of a setting. The checks with their messages, the JSON schema
for editors and the tables of the documentation are all derived from the fields. This module imports neither NNI nor
torch, so that a recipe is checked before anything slow starts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

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

from ..errors import InputError, RecipeError, shown, unknown_name
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
from .allowed import MOST_ERRORS, allowed, and_more, literals, misspelt_first, shown_value
from .layers import Layer, merged
from .reading import read_mapping, user_path

_log = logging.getLogger(__name__)

_C = TypeVar("_C", bound="CheckedSettings")
_S = TypeVar("_S", bound="Settings")


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
        raise ValueError(f"'{info.field_name}' must be {allowed_sizes(plain)}, got {shown_value(value)}")
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
        found = [cls._explain_one(details, quoted) for details in misspelt_first(error)]
        return "; ".join(found[:MOST_ERRORS]) + and_more(found)

    @classmethod
    def _explain_one(cls, details: ErrorDetails, quoted: bool) -> str:
        kind, received = details["type"], details["input"]
        if kind == "value_error":
            return str(details["ctx"]["error"])
        key = str(details["loc"][0])
        if kind == "extra_forbidden":
            return unknown_name("key" if quoted else "argument", key, cls.keys())
        annotation = cls.model_fields[key].annotation
        if choices := literals(annotation):
            return unknown_name(key, received, choices)
        name = f"'{key}'" if quoted else key
        phrase = allowed(annotation, cls.model_fields[key].metadata, received)
        return f"{name} must be {phrase}, got {shown_value(received)}"

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
    def load(
        cls: type[_S],
        path: str | os.PathLike[str],
        overrides: Mapping[str, Any] | None = None,
        source: str = "given values",
    ) -> _S:
        """Load a recipe file, apply overrides, and check the result.

        The log says if a value replaces another form of it in the file; see `replaced_by`.

        Args:
            path: Path of the recipe's YAML file.
            overrides: Values by key that replace those of the file, from NNI's manager or the command line.
            source: Name of the source of the overrides, for messages.

        Raises:
            RecipeError: The file cannot be read, a key is unknown, a value has the wrong type, or a value is out of
                range.
        """
        layers = cls.file_layers(path, overrides or {}, source)
        for line in cls.with_replaced(layers)[1]:
            _log.info("%s", line)
        return cls.from_layers(layers, Path(path).resolve().parent)

    @staticmethod
    def file_layers(path: str | os.PathLike[str], overrides: Mapping[str, Any], source: str) -> list[Layer]:
        """Read a recipe file, and return its settings and those that override them.

        Raises:
            RecipeError: The file cannot be read.
        """
        content = read_mapping(path, "recipe", RecipeError)
        return [Layer("recipe file", content, f"recipe {path}"), Layer(source, overrides)]

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
        return cls.from_layers([Layer(source, content)], folder)

    @classmethod
    def from_layers(cls: type[_S], layers: Sequence[Layer], folder: Path | None = None) -> _S:
        """Create settings from several sources. A message names the source that is at fault.

        Args:
            layers: Sources of the settings.
            folder: Folder that relative paths start from. Defaults to the current folder.

        Raises:
            RecipeError: A key is unknown, a value has the wrong type, or a value is out of range.
        """
        layers = cls.with_replaced(layers)[0]
        try:
            made = cls(**merged(layers))
        except ValidationError as reason:
            raise RecipeError(cls._explain_by_source(reason, layers)) from reason
        if folder is not None:
            made._folder = folder
        return made

    @classmethod
    def replaced_by(cls, before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
        """Return what a source replaces besides its own keys: another form of a value that it gives.

        Args:
            before: Values of the earlier sources.
            given: Values of the source.

        Returns:
            For each further key of `before`, its new value, and the key of `given` that replaces it.
        """
        return {}

    @classmethod
    def with_replaced(cls, layers: Sequence[Layer]) -> tuple[list[Layer], list[str]]:
        """Add to each source what it replaces besides its own keys; see `replaced_by`.

        Returns:
            The sources, and a line for each key that is replaced.
        """
        complete: list[Layer] = []
        lines: list[str] = []
        for layer in layers:
            before = merged(complete)
            further = cls.replaced_by(before, layer.values)
            for key, (value, by) in further.items():
                origin = [one for one in complete if key in one.values][-1]
                new, old = f"{by}={shown(layer.values[by])}", f"{key}={shown(before[key])}"
                left = f", of which {shown(value)} is left" if value else ""
                lines.append(f"{layer.name}: {new} replaces {old} of {origin.name}{left}")
            values = {**layer.values, **{key: value for key, (value, _) in further.items()}}
            complete.append(Layer(layer.source, values, layer.place))
        return complete, lines

    @classmethod
    def _explain_by_source(cls, error: ValidationError, layers: Sequence[Layer]) -> str:
        """Describe an error in one line, which names the source of each value that is refused."""
        errors = misspelt_first(error)
        by_source: dict[str, list[str]] = {}
        for details in errors[:MOST_ERRORS]:
            source = cls._source_of(details, layers)
            by_source.setdefault(source, []).append(cls._explain_one(details, quoted=True))
        return "; ".join(f"{source}: {'; '.join(texts)}" for source, texts in by_source.items()) + and_more(errors)

    @classmethod
    def _source_of(cls, details: ErrorDetails, layers: Sequence[Layer]) -> str:
        if details["loc"]:
            return [layer for layer in layers if details["loc"][0] in layer.values][-1].name
        for number, layer in enumerate(layers[:-1]):  # keys that do not go together
            try:
                cls(**merged(layers[: number + 1]))
            except ValidationError:
                return layer.name
        last = layers[-1]
        try:
            cls(**merged(layers[-1:]))
        except ValidationError as reason:
            if details["msg"] in [alone["msg"] for alone in reason.errors()]:
                return last.name
        others = [layer.name for layer in layers[:-1] if layer.values]
        return f"{last.name}, with {' and '.join(others)}" if others else last.name

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
    return ("true", "false") if annotation is bool else literals(annotation)
