"""One bad input, and short forms for writing down many of them."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
REMOVED: Any = object()  # the value of a key that a case removes
Maker = Callable[[Path], object]  # makes something else than a file with a content at the path that it is given


@dataclass(frozen=True)
class Case:
    """One bad input to the command line.

    Attributes:
        command: Words of the command line, as in a shell, without the program's name.
        received: Part of what was received. It has to be in the message.
        says: Part of the message that says what is allowed or what to do.
        files: Files that the case adds to the prepared folder, or replaces in it. A mapping or list becomes YAML, or
            JSON if the name ends in `.json`; a function makes something else at the path.
        environment: Environment variables.
    """

    command: str
    received: str
    says: str
    files: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        return shlex.split(self.command)

    def __str__(self) -> str:
        return f"{self.command[:60]}: {self.received[:40]}"


def put(path: Path, content: Any) -> None:
    """Write the content of a case's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        path.write_text(yaml.dump(content, Dumper=_DUMPER, sort_keys=False), encoding="utf-8")


def with_key(content: Any, key: str, value: Any) -> Any:
    """Return a copy of a file's content with another value at a place such as `operators.0.runs`."""
    made = copy.deepcopy(content)
    *above, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    inner = made
    for part in above:
        inner = inner[part]
    if value is REMOVED:
        del inner[last]
    else:
        inner[last] = value
    return made


def keys(command: str, name: str, content: Any, rows: Iterable[tuple[str, Any, str, str]]) -> list[Case]:
    """Make a case for each row: a place in a file, its wrong value, and the two parts of the message."""
    return [Case(command, received, says, {name: with_key(content, key, value)}) for key, value, received, says in rows]


def settings(command: str, rows: Iterable[tuple[str, str, str]]) -> list[Case]:
    """Make a case for each row: further words of a command line, and the two parts of the message."""
    return [Case(f"{command} {words}".strip(), received, says) for words, received, says in rows]
